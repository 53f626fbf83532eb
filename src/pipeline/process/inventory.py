"""The inventory group: one order, one reservation, and never more than there is.

Of an order that is placed its goods are reserved, or refused if there is not enough left; who asks first is served
first. An order that has failed gives back what it has. Everything is in Postgres, so one transaction is enough: what
was decided about an order, what is left, and what the order has come to.

What many events ask for is decided here, with the rows of their goods locked, and written by one statement for each
table. Those rows are locked by one statement, in the order of their names: two members that need the same ones wait for
each other, and not both at once.

Lists go to Postgres in binary (`%b`), here and in the other rooms of a batch: as text they take three times as long.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, ClassVar

from pipeline.events import Event, Failed, ItemOrdered
from pipeline.process.member import run
from pipeline.process.orders import STOCK, settle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

HELD = "select sku from reservations where order_id = any(%b)"
LEFT = "select sku, available from stock where sku = any(%b) order by sku for update"
TAKE = """
    update stock set available = available - taken.quantity
    from unnest(%b::text[], %b::bigint[]) as taken (sku, quantity) where stock.sku = taken.sku
"""
DECIDE = """
    insert into reservations (order_id, sku, quantity, state)
    select * from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[])
"""
RELEASE = """
    update reservations set state = 'released' where order_id = any(%b) and state = 'reserved'
    returning sku, quantity
"""


class Inventory:
    """Handles order.placed and order.failed."""

    name: ClassVar = "inventory"
    events: ClassVar[Sequence[type[Event]]] = (ItemOrdered, Failed)

    def ready(self) -> None:
        """It needs nothing but the database."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """Reserve for new orders, then give back what failed ones have: an order is placed before it fails."""
        placed = [event for event in events if isinstance(event, ItemOrdered)]
        failed = [event.order_id for event in events if isinstance(event, Failed)]
        skus = {event.sku for event in placed}
        if failed:
            skus.update(sku for (sku,) in connection.execute(HELD, [failed]))
        left: dict[str, int] = dict(connection.execute(LEFT, [list(skus)]).fetchall())
        if placed:
            self.reserve(connection, placed, left)
        if failed:
            self.release(connection, failed)

    def reserve(self, connection: psycopg.Connection, placed: Sequence[ItemOrdered], left: Mapping[str, int]) -> None:
        """Decide about each of them, in their order."""
        taken: defaultdict[str, int] = defaultdict(int)
        states = []
        for event in placed:
            enough = left.get(event.sku, 0) - taken[event.sku] >= event.quantity
            states.append("reserved" if enough else "refused")
            taken[event.sku] += event.quantity if enough else 0
        orders = [event.order_id for event in placed]
        self.take(connection, taken)
        wanted = [[event.sku for event in placed], [event.quantity for event in placed]]
        connection.execute(DECIDE, [orders, *wanted, states])
        settle(connection, STOCK, orders, states)

    def release(self, connection: psycopg.Connection, orders: Sequence[str]) -> None:
        """Give back what these orders have."""
        given: defaultdict[str, int] = defaultdict(int)
        for sku, quantity in connection.execute(RELEASE, [orders]):
            given[sku] -= quantity
        self.take(connection, given)

    def take(self, connection: psycopg.Connection, taken: Mapping[str, int]) -> None:
        """Write what is left; the rows are locked."""
        changed = {sku: quantity for sku, quantity in taken.items() if quantity}
        if changed:
            connection.execute(TAKE, [list(changed), list(changed.values())])


def main() -> None:
    """Run the inventory consumer until SIGTERM."""
    run(Inventory)
