"""Twin: `message_for_event` for six orders of ten, so that the same schedule violates in some runs and holds in others.

Which orders is in their ids, which are new in each drill: no replay can know, and both copies of an event are treated
alike. What is to be found out about such a bug is how often it shows, and which faults it needs all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

from tests.thin.consumer import GroupConsumer
from tests.thin.payment import run
from tests.twins.message_for_event import ByMessage, RemembersCharges

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.events import OrderPlaced


class BySomeMessages(ByMessage):
    """Knows some events by their places in the topic."""

    def process(self, message: Message, event: OrderPlaced) -> None:
        """BUG: should treat all events like the other four."""
        kind = ByMessage if UUID(event.order_id).int % 10 < 6 else GroupConsumer
        kind.process(self, message, event)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(RemembersCharges, BySomeMessages)
