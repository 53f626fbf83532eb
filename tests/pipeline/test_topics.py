"""What Kafka clients are told. A test that fails here means that a guarantee depends on a default again."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka.cimpl import NewTopic

from chaos.waiting import Deadline, wait_until
from pipeline.route.topics import (
    ORDERS,
    PARTITIONS,
    _create,
    consumer_config,
    full_name,
    producer_config,
    reader_config,
    require_topic,
)
from pipeline.runtime import Unavailable
from pipeline.settings import ConsumerSettings, Kafka

if TYPE_CHECKING:
    from chaos import Lane
    from pipeline.route.topics import Config

KAFKA = Kafka(kafka_bootstrap_servers="127.0.0.1:9092", namespace="")
CONSUMER = ConsumerSettings(database_url="", kafka_bootstrap_servers="127.0.0.1:9092", group_instance_id=None)


@pytest.mark.parametrize(("namespace", "name"), [("", "orders"), ("copy1", "copy1.orders")])
def test_a_namespace_is_a_prefix(namespace: str, name: str) -> None:
    """Several copies share a broker without sharing a topic."""
    settings = Kafka(kafka_bootstrap_servers="127.0.0.1:9092", namespace=namespace)
    assert full_name(settings, "orders") == name


def test_producer() -> None:
    """A producer never reorders, never duplicates by itself, reports soon, and agrees with Java about partitions."""
    config = producer_config(KAFKA)
    assert config["partitioner"] == "murmur2_random"
    assert config["enable.idempotence"] is True
    assert config["acks"] == "all"
    assert config["linger.ms"] == 0
    assert int(str(config["message.timeout.ms"])) <= 10_000
    assert int(str(config["socket.timeout.ms"])) < int(str(config["message.timeout.ms"]))


@pytest.mark.parametrize("config", [producer_config(KAFKA), consumer_config(CONSUMER, "payment"), reader_config(KAFKA)])
def test_every_client(config: Config) -> None:
    """Each gives up on silence as soon as it was told to, and soon finds a broker again that it was made to forget."""
    assert config["socket.timeout.ms"] == 1000 * KAFKA.silence_s
    assert int(str(config["metadata.recovery.rebootstrap.trigger.ms"])) <= 1_000


def test_consumer() -> None:
    """A consumer commits by itself nothing and starts at the beginning."""
    config = consumer_config(CONSUMER, "payment")
    assert config["group.id"] == "payment"
    assert config["group.protocol"] == "classic"
    assert config["auto.offset.reset"] == "earliest"
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
    assert int(str(config["heartbeat.interval.ms"])) * 3 < int(str(config["session.timeout.ms"]))
    assert config["topic.metadata.refresh.interval.ms"] == config["heartbeat.interval.ms"]


def test_a_quiet_member_stays(lane: Lane, namespace: str) -> None:
    """A member with a session shorter than librdkafka's clock keeps its partitions while nothing happens."""
    settings = CONSUMER.model_copy(update={"kafka_bootstrap_servers": lane.kafka, "session_timeout_ms": 500})
    consumer, ended = Consumer(consumer_config(settings, f"{namespace}.quiet")), []

    def gone(*_: object) -> None:
        ended.append(True)

    with contextlib.closing(consumer):
        consumer.subscribe([f"{namespace}.{ORDERS}"], on_revoke=gone, on_lost=gone)
        wait_until("an assignment", lambda: consumer.poll(0.05) or consumer.assignment(), Deadline(20))
        quiet = Deadline(2.5)
        while not quiet.passed:
            consumer.poll(0.05)
        assert not ended


def test_a_missing_topic_is_made(lane: Lane) -> None:
    """Whoever is to write to a topic that is not there makes it, once, with the partitions that it is to have."""
    settings = Kafka(kafka_bootstrap_servers=lane.kafka, namespace=f"{lane.name}.{uuid4().hex}")
    producers = [Producer(producer_config(settings)) for _ in range(2)]
    with pytest.raises(Unavailable, match=r"no topic .*orders' yet: Broker: Unknown topic"):
        require_topic(producers[0], settings, ORDERS)
    for producer in producers:
        wait_until("the topic", lambda: made(producer, settings), Deadline(20))  # noqa: B023 - called at once
    topic = full_name(settings, ORDERS)
    assert len(producers[0].list_topics(topic).topics[topic].partitions) == PARTITIONS[ORDERS]


def test_two_make_a_topic(lane: Lane) -> None:
    """Whoever comes second is content."""
    settings = Kafka(kafka_bootstrap_servers=lane.kafka)
    name = f"{lane.name}.{uuid4().hex}"
    for _ in range(2):
        _create(settings, NewTopic(name, 3))
    with pytest.raises(Unavailable, match="not made: Number of partitions"):
        _create(settings, NewTopic(f"{name}.other", 0))


def made(producer: Producer, settings: Kafka) -> bool:
    """Whether the topic is there."""
    try:
        require_topic(producer, settings, ORDERS)
    except Unavailable:
        return False
    return True


def test_membership_is_static_only_on_request() -> None:
    """Without GROUP_INSTANCE_ID a member is dynamic, and its group rebalances when it leaves."""
    assert "group.instance.id" not in consumer_config(CONSUMER, "payment")
    static = CONSUMER.model_copy(update={"group_instance_id": "payment-0"})
    assert consumer_config(static, "payment")["group.instance.id"] == "payment-0"
