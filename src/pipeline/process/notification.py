"""The notification group: one mail for each outcome of an order.

A mail is a row, written in the transaction that notes the event; a mail server that fetches them is somebody else's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pipeline.events import Confirmed, Event, Failed
from pipeline.process.member import run

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

TEXTS = {Confirmed: "Your order {} is confirmed.", Failed: "Your order {} could not be fulfilled."}
WRITE = """
    insert into mails (order_id, event_id, text)
    select * from unnest(%b::text[], %b::uuid[], %b::text[])
"""


class Notification:
    """Handles order.confirmed and order.failed."""

    name: ClassVar = "notification"
    events: ClassVar[Sequence[type[Event]]] = tuple(TEXTS)

    def ready(self) -> None:
        """It needs nothing but the database."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """Write the mails."""
        texts = [TEXTS[type(event)].format(event.order_id) for event in events]
        connection.execute(WRITE, [[one.order_id for one in events], [one.event_id for one in events], texts])


def main() -> None:
    """Run the notification consumer until SIGTERM."""
    run(Notification)
