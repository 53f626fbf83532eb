"""An inventory group that cannot handle one order's goods, its retry worker, and a twin of it: the endless retry.

The twin tries the event for ever, in its place, as a consumer without a budget does: nothing is lost, and nothing else
of its partitions is done. Found by the poison drill: the neighbours wait for longer than they may.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.events import ItemOrdered
from pipeline.process import member, retry
from pipeline.process.inventory import Inventory
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from pipeline.events import Event
    from pipeline.process.member import Delivery

SKU = "cursed"


class Cursed(Inventory):
    """Raises where it should reserve these goods."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """The usual; and what fails has changed something before it does."""
        super().effect(connection, events)
        if SKU in {event.sku for event in events if isinstance(event, ItemOrdered)}:
            raise ValueError(f"nobody can count {SKU} goods")


class Endless(member.Member):
    """Has no budget."""

    def _failed(self, one: Delivery, why: Exception) -> None:
        """BUG: should give its place to its neighbours after a few attempts."""
        raise Unavailable(f"Event {one.event.event_id}", repr(why))


def main() -> None:
    """Run it in the place of `pipeline.process.inventory:main`."""
    member.run(Cursed)


def endless() -> None:
    """Run the twin."""
    member.run(Cursed, Endless)


def retries() -> None:
    """Run its retry worker."""
    retry.run(Cursed)
