"""A group can be put at the beginning of its topics, unless it has members."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from pipeline.process.rewind import main, rewind
from pipeline.route.topics import consumer_config
from pipeline.runtime import Unavailable
from pipeline.settings import ConsumerSettings
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from chaos import Lane


def test_a_group_begins_anew(lane: Lane, namespace: str) -> None:
    """What was committed behind the end of a topic counts no more; a group with a member is refused, and stays."""
    settings = ConsumerSettings(
        database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace, session_timeout_ms=500
    )
    topic = f"{namespace}.orders"
    producer = Producer({"bootstrap.servers": lane.kafka})
    producer.produce(topic, b"event", partition=1)
    assert producer.flush(20) == 0
    behind = [TopicPartition(topic, number, 7) for number in (0, 1)]
    with closing(Consumer(consumer_config(settings, f"{namespace}.payment"))) as member:
        member.subscribe([topic])
        until(lambda: member.poll(0.1) is not None)
        member.commit(offsets=behind, asynchronous=False)
        with pytest.raises(Unavailable, match=r"group '.+\.payment' not rewound: .*UNKNOWN_MEMBER_ID"):
            rewind(settings, "payment")
        assert [one.offset for one in member.committed(behind, 20)] == [7, 7]
    assert sorted((one.partition, one.offset) for one in rewind(settings, "payment")) == [(0, 0), (1, 0)]
    with closing(Consumer(consumer_config(settings, f"{namespace}.payment"))) as member:
        assert [one.offset for one in member.committed(behind, 20)] == [0, 0]


def test_there_are_three_groups(capsys: pytest.CaptureFixture[str]) -> None:
    """Who mistypes a group is told so, and no other group is given offsets."""
    with pytest.raises(SystemExit) as ended:
        main(["paymnet"])
    assert ended.value.code == 2
    assert "invalid choice: 'paymnet'" in capsys.readouterr().err
