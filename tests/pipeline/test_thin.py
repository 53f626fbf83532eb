"""The consumer that seeded bugs are made of: what it cannot handle stops it, and is not skipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from chaos.waiting import Deadline
from pipeline.route.topics import consumer_config
from pipeline.settings import ConsumerSettings

if TYPE_CHECKING:
    from chaos import Lane
    from tests.pipeline.workers import Start, Worker


@pytest.mark.parametrize("value", [b"\xff\x00", b"{}", b'{"order_id": "o-1", "seq": "first"}', b"[" * 100_000, None])
def test_poison_ends_it(lane: Lane, namespace: str, start: Start, gateway: Worker, value: bytes | None) -> None:
    """It says where the event is, ends with 1, and its group has committed nothing: whoever comes next meets it too."""
    producer = Producer({"bootstrap.servers": lane.kafka})
    producer.produce(f"{namespace}.orders", value, key=b"o-1", partition=1)
    assert producer.flush(20) == 0
    worker = start(
        "thin",
        DATABASE_URL=lane.postgres,
        KAFKA_BOOTSTRAP_SERVERS=lane.kafka,
        NAMESPACE=namespace,
        GATEWAY_URL=f"http://127.0.0.1:{gateway.port}",
    )
    assert worker.process.wait(Deadline(20)).status == 1
    assert worker.said(rf"{namespace}.orders\[1\]@0 can never be handled: .+\. Ending, its offset is not committed\.")
    settings = ConsumerSettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace)
    reader = Consumer(consumer_config(settings, f"{namespace}.payment"))
    [committed] = reader.committed([TopicPartition(f"{namespace}.orders", 1)], 20)
    reader.close()
    assert committed.offset < 0  # none
