"""What all requests to the page share: goods, orders, the board, and how they look."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from psycopg_pool import AsyncConnectionPool

from pipeline.display.asking import Api, Unknown
from pipeline.display.board import Board
from pipeline.display.patience import patience
from pipeline.display.rendering import money, render
from pipeline.display.status import Good, Records, Status
from pipeline.runtime import AWAY, SILENCE, Outage, address, first_line

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from pipeline.display.asking import Accepted, Refused
    from pipeline.display.cookies import Note, Wish
    from pipeline.settings import DisplaySettings

CONNECTION_WAIT_S = 2.0
MOST_ASKED = 10_000


class Seen(NamedTuple):
    """What there is to show of a customer's orders, the latest first."""

    statuses: list[Status]
    read: bool  # if not, Postgres is away, and these are only those that the browser has noted


async def check(connection: psycopg.AsyncConnection) -> None:
    """Of a connection that has rested: whether Postgres is still there."""
    async with patience(connection):
        await AsyncConnectionPool.check_connection(connection)


class Shop:
    """One for an application. `pool` is to be opened, and `board` to be run."""

    def __init__(self, settings: DisplaySettings) -> None:
        self.pool = AsyncConnectionPool(
            settings.database_url,
            kwargs={"autocommit": True, **SILENCE},
            check=check,
            min_size=1,
            max_size=4,
            timeout=CONNECTION_WAIT_S,
            reconnect_timeout=3,
            open=False,
        )
        self.api = Api(settings.api_url, settings.api_timeout_s)
        self.goods: dict[str, Good] = {}
        self.records = Records(self.pool)
        self.board = Board(settings.database_url, Records(self.pool), self.card, settings.overdue_s)
        self._asked: dict[str, Wish] = {}
        self._overdue_s = settings.overdue_s
        self._outage = Outage("Pages are without what Postgres knows; trying again")
        self._where = f"Postgres at {address(settings.database_url)}"

    def card(self, status: Status) -> str:
        """An order, for its customer."""
        look = "late" if status.late(self._overdue_s) else status.state
        return render("card.html", order=status, look=look, version=status.version(self._overdue_s))

    async def see(self, customer: str, notes: Sequence[Note]) -> Seen:
        """As `look`. If Postgres is away: those that are noted, of which we know no more than that."""
        try:
            seen = Seen(await self.look(customer, notes), read=True)
        except AWAY as why:
            self._outage.tell(f"{self._where}: {first_line(why)}")
            return Seen([self.accepted(customer, note)._replace(state="accepted") for note in notes], read=False)
        self._outage.over()
        return seen

    async def look(self, customer: str, notes: Sequence[Note]) -> list[Status]:
        """The goods are read; the customer's orders, and those that are noted, as they are now, the latest first.

        Before them come those that are noted and that nobody knows of yet, as accepted.

        Raises:
            pipeline.runtime.AWAY: Postgres is. The goods are what they were.
        """
        noted = {note.order_id: note for note in notes}
        await self._take_stock()
        listed = await self.records.of_customers([customer])
        rest = list(noted.keys() - {status.order_id for status in listed})
        known = [*listed, *(await self.records.of_orders(rest) if rest else [])]
        for status in known:
            noted.pop(status.order_id, None)
        known.sort(key=lambda status: status.created_at, reverse=True)
        return [*(self.accepted(customer, note) for note in noted.values()), *known]

    def accepted(self, customer: str, note: Note) -> Status:
        """What is known of an order when no more is known than that."""
        sku, price, currency = note.offer
        what = (self.name(sku), note.quantity, price * note.quantity, currency)
        when = (datetime.fromtimestamp(note.at, UTC), time.time() - note.at)
        return Status(note.order_id, customer, *what, "pending", None, None, False, False, *when)

    def name(self, sku: str) -> str:
        """What people call it."""
        return self.goods[sku].name if sku in self.goods else sku

    async def amiss(self, wish: Wish) -> str:
        """What the shop has against it, if it is new. What was asked before may be an order: that the API has to say.

        Raises:
            pipeline.runtime.AWAY: nobody knows, as Postgres is away.
        """
        if not wish.offer.sku:
            return "Choose something."
        if self._asked.get(wish.key) == wish:
            return ""
        try:
            await self._take_stock()
        except AWAY:
            if not self.goods:
                raise
        good = self.goods.get(wish.offer.sku)
        if (good is not None and good.offer == wish.offer) or await self.records.knows(wish.key):
            return ""
        if good is None:
            return "This is not in our shop."
        return f"The price has changed: it is {money(good.price, good.currency)} now."

    async def ask(self, wish: Wish, order: Mapping[str, object]) -> Accepted | Refused | Unknown:
        """Ask the API. For as long as it does not answer, what was offered stays so."""
        self._asked[wish.key] = wish
        answer = await self.api.ask(wish.key, order)
        if not isinstance(answer, Unknown):
            self._asked.pop(wish.key, None)
        elif len(self._asked) > MOST_ASKED:
            del self._asked[next(iter(self._asked))]
        return answer

    async def _take_stock(self) -> None:
        self.goods = {good.sku: good for good in await self.records.goods()}
