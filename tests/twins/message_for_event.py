"""Twin: the payment consumer that takes the message for the event, and has a second defence where that fails.

Inbox and gateway key go by topic, partition and offset, which is what a redelivery has in common with the delivery
before: whatever becomes of the consumer, it is given the same message again, and that is charged once. A relay that
publishes an event twice makes two messages of it, as is known, so the consumer also remembers what it has charged, in
its memory: such copies come close together. Each defence is complete against its own kind of duplicate, and no single
fault does any harm. But the memory dies with the consumer, and is not refilled by a redelivery that the inbox stops.

Found by two faults, in either order of time. The relay has to publish twice (`kafka.produce`: crash-after;
`postgres.write`: crash-before, crash-late, lose-request, refuse), and the consumer to forget what is in its inbox, from
`postgres.commit`: crash-after, lose-reply on, up to `kafka.offset_commit`: crash-after. By chance also where it dies
later, at the copy itself or at an event that was published between the two. Not where it dies before its commit: the
first message is charged again then, with the same key, and remembered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import NAMESPACE_URL, uuid5

from msgspec.structs import replace

from tests.thin.consumer import GroupConsumer, where
from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.events import OrderPlaced

charged: set[str] = set()


class ByMessage(GroupConsumer):
    """Knows events by their places in the topic."""

    def process(self, message: Message, event: OrderPlaced) -> None:
        """BUG: should leave the event the id that its writer gave it."""
        super().process(message, replace(event, event_id=uuid5(NAMESPACE_URL, where(message))))


class RemembersCharges(Payment):
    """Passes over copies that follow soon."""

    def handle(self, event: OrderPlaced) -> None:
        """BUG: should leave the remembering to the inbox."""
        if event.order_id in charged:
            return
        with self._database.transaction() as connection:
            if not self.first_time(connection, event):
                return
            self.charge(connection, event)
        charged.add(event.order_id)

    def key(self, event: OrderPlaced) -> str:
        """BUG: should be derived from the order."""
        return str(event.event_id)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(RemembersCharges, ByMessage)
