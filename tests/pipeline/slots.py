"""A CDC relay of one's own in a test: its slot, and whether it has carried what there is."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, TopicPartition

from chaos.waiting import Deadline
from pipeline.route.topics import reader_config
from pipeline.settings import CdcSettings
from tests.fix_slot import dropped
from tests.pipeline.workers import PATIENCE_S, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from confluent_kafka import Message

    from chaos import Lane
    from pipeline.publish.cdc import CdcRelay
    from pipeline.settings import Kafka


def messages(settings: Kafka, topic: str) -> list[Message]:
    """Everything on a topic that a reader of what is committed is given; in order within each partition."""
    name = f"{settings.namespace}.{topic}"
    consumer = Consumer(reader_config(settings))
    numbers = consumer.list_topics(name).topics[name].partitions
    consumer.assign([TopicPartition(name, number, 0) for number in numbers])
    found: list[Message] = []
    ended = 0
    deadline = Deadline(PATIENCE_S)
    while ended < len(numbers):
        message = consumer.poll(0.1)
        if message is None:  # and not if it is false: so is one without a value
            assert not deadline.passed
        elif (error := message.error()) is None:
            found.append(message)
        else:
            assert error.code() == KafkaError._PARTITION_EOF
            ended += 1
    consumer.close()
    return found


def committed(settings: Kafka, topic: str) -> list[bytes]:
    """What the messages say."""
    return [message.value() or b"" for message in messages(settings, topic)]


@contextlib.contextmanager
def own_slot(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a relay with a slot, a publication and a topic of its own."""
    name = f"cdc_{uuid4().hex}"
    db.execute(f"create publication {name} for table outbox with (publish = 'insert')")
    db.execute(f"select pg_create_logical_replication_slot('{name}', 'pgoutput')")
    yield CdcSettings(
        database_url=lane.postgres,
        kafka_bootstrap_servers=lane.kafka,
        namespace=namespace,
        slot=name,
        publication=name,
    )
    until(lambda: dropped(lane, name))
    db.execute(f"drop publication {name}")


def confirmed(db: psycopg.Connection, settings: CdcSettings) -> int:
    """What the slot need not send any more."""
    query = "select (confirmed_flush_lsn - '0/0')::bigint from pg_replication_slots where slot_name = %s"
    return int((db.execute(query, [settings.slot]).fetchone() or (0,))[0])


def end_of_log(db: psycopg.Connection) -> int:
    """Where the next record goes."""
    return int((db.execute("select (pg_current_wal_insert_lsn() - '0/0')::bigint").fetchone() or (0,))[0])


def carry_until(relay: CdcRelay, condition: Callable[[], object]) -> None:
    """Have it look at the slot until `condition` is true."""

    def done() -> object:
        relay.carry()
        return condition()

    until(done)


def carried(db: psycopg.Connection, settings: CdcSettings, relay: CdcRelay) -> None:
    """Have everything carried that was committed by now."""
    end = end_of_log(db)
    carry_until(relay, lambda: confirmed(db, settings) >= end)
