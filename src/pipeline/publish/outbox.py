"""What both relays know of the outbox: how a row appears on the topic, and what proves that it does.

A message is its row's payload, byte for byte, keyed by the order. What a reader wants to know before it reads the
payload is in headers: `event_id`, `type`, and `traceparent`, if the request that led to it had one.

A report of success is proof if it has an offset. librdkafka also reports success for a message that was refused if the
one behind it was taken, as no broker takes what comes after a gap. One that has not heard of the producer before does
(confluent-kafka-go#921; `docs/decisions/007-what-proves-a-delivery.md`).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from pipeline.observe.logs import about

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import psycopg
    from confluent_kafka import KafkaError, Message, Producer

    Headers = list[tuple[str, str | bytes | None]]


log = logging.getLogger(__name__)

REMOVAL_S = 5.0  # between looks at what is old enough to be removed
REMOVED = 16_000  # looked at, at a time: more than is published between two times, or a backlog would never go


class Row(NamedTuple):
    """A row of the outbox, as far as a relay is concerned: texts, as Postgres writes them."""

    event_id: str | bytes
    order_id: str | bytes
    type: str | bytes
    payload: str | bytes
    traceparent: str | bytes | None
    seq: int = 0  # among the order's events, for those who have to name a row

    def produce(
        self, producer: Producer, topic: str, on_delivery: Callable[[KafkaError | None, Message], None]
    ) -> None:
        """Hand the event to the producer, keyed by its order."""
        headers: Headers = [("event_id", self.event_id), ("type", self.type)]
        if self.traceparent is not None:
            headers.append(("traceparent", self.traceparent))
        producer.produce(topic, self.payload, self.order_id, headers=headers, on_delivery=on_delivery)


def tell(rows: Iterable[Row], what: str) -> None:
    """Say of each what was done with it, to who wants to know of each."""
    if log.isEnabledFor(logging.DEBUG):
        for row in rows:
            log.debug(what, extra=about(*map(text, (row.order_id, row.event_id, row.traceparent or ""))))


def text(value: str | bytes) -> str:
    """As text."""
    return value if isinstance(value, str) else value.decode()


class Removal:
    """Removes rows that were published long ago, some at a time, without a rest while there are many.

    `statement` is given the size of a batch and what `some` is given.
    """

    def __init__(self, statement: str) -> None:
        self._statement = statement
        self._due = 0.0

    def some(self, connection: psycopg.Connection, *asked: object) -> None:
        """Remove a batch, if it is time."""
        if (now := time.monotonic()) >= self._due:
            removed = connection.execute(self._statement, [REMOVED, *asked]).rowcount
            self._due = now if removed >= REMOVED // 16 else now + REMOVAL_S  # of sixteen relays each has its part


def is_proof(message: Message) -> bool:
    """Whether a report of success proves that Kafka has the message. What is not proven is sent again."""
    return message.offset() is not None
