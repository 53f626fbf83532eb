"""The payment group: one order, one charge, and one refund if it fails after all.

What many events ask for is asked of the gateway at once (`pipeline.gateway_client`), in the transaction that notes the
events and keeps the answers. The gateway is outside of that transaction, so a crash before COMMIT asks it again, and
what makes that harmless is the key: derived from the order, the same in every attempt, after every crash and in every
replay. The inbox alone would not do, nor would the key alone: gateways forget keys after a while.

An answer that did not come is not known, so it is asked for again with the same key. It is never made up for by a
refund: what was not charged cannot be given back.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, ClassVar

from pipeline.events import Event, Failed, ItemPriced
from pipeline.gateway_client import Asked, Gateway
from pipeline.process.member import run
from pipeline.process.orders import PAYMENT, settle
from pipeline.settings import Billed, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

RECORD = """
    insert into payments (key, order_id, amount, currency, state)
    select * from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[], %b::text[])
"""
CHARGED = """
    select order_id, amount, currency from payments where order_id = any(%b) and state = 'paid' order by order_id
"""
GIVEN_BACK = """
    insert into refunds (key, order_id, amount, currency)
    select * from unnest(%b::text[], %b::text[], %b::bigint[], %b::text[])
"""


class Payment:
    """Handles order.placed and order.failed."""

    name: ClassVar = "payment"
    events: ClassVar[Sequence[type[Event]]] = (ItemPriced, Failed)

    def __init__(self) -> None:
        billed = load(Billed)
        self.gateway = Gateway(billed.gateway_url, billed.silence_s)

    def ready(self) -> None:
        """The gateway is connected to at the first charge."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """Charge new orders, then give back what failed ones have paid: an order is placed before it fails."""
        placed = [event for event in events if isinstance(event, ItemPriced)]
        failed = [event.order_id for event in events if isinstance(event, Failed)]
        if placed:
            self.charge(connection, placed)
        if failed:
            self.refund(connection, failed)

    def charge(self, connection: psycopg.Connection, placed: Sequence[ItemPriced]) -> None:
        """Have the gateway charge the orders."""
        asked = [Asked(self.key(one.order_id, "charge"), one.order_id, one.amount, one.currency) for one in placed]
        self.keep(connection, asked, self.gateway.charge(asked))

    def keep(self, connection: psycopg.Connection, asked: Sequence[Asked], charged: Sequence[bool]) -> None:
        """Keep what the gateway has answered, and tell the orders."""
        states = ["paid" if one else "declined" for one in charged]
        connection.execute(RECORD, [*map(list, zip(*asked, strict=True)), states])
        orders = [one.order_id for one in asked]
        settle(connection, PAYMENT, orders, ["charged" if one else "declined" for one in charged])

    def refund(self, connection: psycopg.Connection, orders: Sequence[str]) -> None:
        """Give back what was charged for them."""
        charged = connection.execute(CHARGED, [list(orders)]).fetchall()
        if charged:
            asked = [Asked(self.key(order_id, "refund"), order_id, *money) for order_id, *money in charged]
            self.gateway.refund(asked)
            connection.execute(GIVEN_BACK, list(map(list, zip(*asked, strict=True))))

    @staticmethod
    def key(order_id: str, what: str) -> str:
        """What makes two requests the same for the gateway."""
        return sha256(f"{order_id}|{what}".encode()).hexdigest()


def main() -> None:
    """Run a member of the payment group until SIGTERM."""
    run(Payment)
