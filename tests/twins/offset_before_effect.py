"""Twin: the payment consumer that commits the offset before it charges.

It never charges twice; it forgets. A worker that dies after its offset was stored and before the charge is durable will
not be given the event again, and the order stays pending for ever. Found by "every accepted order was charged" (nothing
lost) under a crash anywhere from `kafka.offset_commit`: crash-after up to `postgres.commit`: crash-before, never by
"one charge per order".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.thin.consumer import GroupConsumer
from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.events import OrderPlaced


class OffsetFirst(GroupConsumer):
    """At most once, by mistake."""

    def process(self, message: Message, event: OrderPlaced) -> None:
        """BUG: should be the other way round."""
        self.commit(message)
        self.handle(event)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(Payment, OffsetFirst)
