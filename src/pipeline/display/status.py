"""What is known of an order, and what its customer is told.

Every fact is kept once it is known, so each has a place in `version`, which only rises: whoever shows orders replaces
what has a lower one, however answers overtake each other.

An order that is pending for too long is one of which we say that we could not confirm it yet. That is a fact, too.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from psycopg.rows import class_row

from pipeline.display.cookies import Offer
from pipeline.display.patience import patience

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from datetime import datetime

    import psycopg
    from psycopg_pool import AsyncConnectionPool

OF_ORDERS = "select * from order_status where order_id = any(%s)"
OF_CUSTOMERS = """
    select shown.* from unnest(%s::text[]) as customer (id), lateral (
        select * from order_status where customer_id = customer.id order by created_at desc, order_id limit 20
    ) as shown
"""
GOODS = "select sku, name, price, currency from goods order by name"
KNOWN = "select from idempotency_keys where key = %s"


class Status(NamedTuple):
    """One order, as it is known."""

    order_id: str
    customer_id: str
    name: str
    quantity: int
    amount: int  # minor units
    currency: str
    state: str  # pending, confirmed or failed; accepted, if we cannot read which of these it is
    payment: str | None  # charged or declined
    stock: str | None  # reserved or refused
    refunded: bool
    looked_up: bool  # at the gateway, by the reconciler
    created_at: datetime
    age_s: float  # by Postgres' clock

    def late(self, overdue_s: float) -> bool:
        """Whether it has been pending for longer than it should."""
        return self.state == "pending" and self.age_s >= overdue_s

    def version(self, overdue_s: float) -> int:
        """Rises with each fact. Being late is half of one, that ends with the next. Not to have read it is none."""
        if self.state == "accepted":
            return -1
        facts = (self.payment, self.stock, self.state != "pending", self.refunded, self.looked_up)
        return 2 * sum(map(bool, facts)) + self.late(overdue_s)


class Good(NamedTuple):
    """Something to buy."""

    sku: str
    name: str
    price: int  # of one, in minor units
    currency: str

    @property
    def offer(self) -> Offer:
        """What a form offers."""
        return Offer(self.sku, self.price, self.currency)


class Records:
    """Reads them.

    Raises, in every method:
        pipeline.runtime.AWAY: Postgres is.
    """

    def __init__(self, pool: AsyncConnectionPool) -> None:
        self._pool = pool

    async def of_orders(self, orders: Sequence[str]) -> list[Status]:
        """These orders, as far as they are known."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(Status)) as cursor:
            return await (await cursor.execute(OF_ORDERS, [list(orders)])).fetchall()

    async def of_customers(self, customers: Sequence[str]) -> list[Status]:
        """The latest orders of these customers, each one's latest first."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(Status)) as cursor:
            return await (await cursor.execute(OF_CUSTOMERS, [list(customers)])).fetchall()

    async def goods(self) -> list[Good]:
        """What there is to buy."""
        async with self._connection() as connection, connection.cursor(row_factory=class_row(Good)) as cursor:
            return await (await cursor.execute(GOODS)).fetchall()

    async def knows(self, key: str) -> bool:
        """Whether an order was accepted under this key."""
        async with self._connection() as connection:
            return (await connection.execute(KNOWN, [key])).rowcount > 0

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        async with self._pool.connection() as connection, patience(connection):
            yield connection
