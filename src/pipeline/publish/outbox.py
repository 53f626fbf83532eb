"""What both relays know of the outbox: how a row appears on the topic, and what proves that it does.

A report of success is proof if it has an offset. librdkafka also reports success for a message that was refused if the
one behind it was taken, as no broker takes what comes after a gap. One that has not heard of the producer before does
(confluent-kafka-go#921; `docs/decisions/007-what-proves-a-delivery.md`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from confluent_kafka import KafkaError, Message, Producer


class Row(NamedTuple):
    """A row of the outbox, as far as readers of the topic are concerned."""

    id: int
    event_id: UUID
    order_id: str
    seq: int
    type: str
    payload: dict[str, object]

    def value(self) -> bytes:
        """The event as it appears on the topic."""
        envelope = {"event_id": str(self.event_id), "type": self.type, "order_id": self.order_id, "seq": self.seq}
        return json.dumps(self.payload | envelope, separators=(",", ":")).encode()

    def produce(
        self, producer: Producer, topic: str, on_delivery: Callable[[KafkaError | None, Message], None]
    ) -> None:
        """Hand the event to the producer, keyed by its order."""
        headers: list[tuple[str, str | bytes | None]] = [("event_id", str(self.event_id)), ("type", self.type)]
        producer.produce(topic, self.value(), self.order_id, headers=headers, on_delivery=on_delivery)


def is_proof(message: Message) -> bool:
    """Whether a report of success proves that Kafka has the message. What is not proven is sent again."""
    return message.offset() is not None
