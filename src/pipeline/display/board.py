"""The board: which pages are open, and what each has yet to be told.

Postgres says which orders have changed (`tell_pages` in schema.sql); those that somebody looks at are read again, all
at once, and each is rendered once, for all pages that show it. A page that is slow has no queue: what it is to be told
of an order is replaced by what came after it.

Whoever connects is told everything there is, unless it knows that: the id of a message stands for all that its
customer's page shows then (`Last-Event-ID`). So nothing is lost by a connection that was lost, nor by one to Postgres.
While that one is lost, or nobody answers on it, pages are told that there is no news.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

import psycopg

from pipeline.display.patience import patience
from pipeline.runtime import AWAY, SILENCE, Outage, address, first_line

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from pipeline.display.status import Records, Status

log = logging.getLogger(__name__)

LISTEN = "listen orders"
SEPARATOR = "\x1f"
PAUSE_S, LONGEST_PAUSE_S = 0.25, 5.0  # between attempts
QUIET_S = 3.0  # and we ask whether Postgres is still there
SOON_S = 0.02  # Postgres' clock and ours agree to this much


class Message(NamedTuple):
    """What a page is told: of orders their cards, or of the link whether it is live or Postgres away."""

    event: str
    data: str
    id: str | None = None  # of all that the page shows with it


class Page:
    """What one open page has yet to be told."""

    def __init__(self, customer: Customer, knows: str) -> None:
        self.knows: str | None = knows  # until it is welcome
        self._customer = customer
        self._cards: dict[str, str] = {}
        self._link, self._link_told = "", ""
        self._told = asyncio.Event()

    def put(self, cards: dict[str, str]) -> None:
        """To be told, in the place of what was to be told of these orders."""
        if cards:
            self._cards |= cards
            self._told.set()

    def link(self, now: str) -> None:
        """To be told, if it is new: "live" or "away"."""
        self._link = now
        self._told.set()

    async def told(self) -> list[Message]:
        """Wait for something to tell."""
        await self._told.wait()
        self._told.clear()
        cards, self._cards = self._cards, {}
        messages = [Message("order", "\n".join(cards.values()), self._customer.shown())] if cards else []
        if self._link != self._link_told:
            self._link_told = self._link
            messages.append(Message("link", self._link))
        return messages


class Customer:
    """Somebody who looks at their orders."""

    def __init__(self) -> None:
        self.pages: set[Page] = set()
        self.cards: dict[str, str] = {}
        self.versions: dict[str, int] = {}

    def shown(self) -> str:
        """Stands for what a page shows that knows everything."""
        return blake2b(repr(sorted(self.versions.items())).encode(), digest_size=12).hexdigest()

    def welcome(self, *, live: bool) -> None:
        """Tell those who have just come what they do not know, and all that there will be news."""
        for page in self.pages:
            if page.knows is not None and page.knows != self.shown():
                page.put(self.cards)
            page.knows = None
            if live:
                page.link("live")


class Board:
    """Tells pages. Runs as a task, within the application's event loop."""

    def __init__(self, database_url: str, records: Records, render: Callable[[Status], str], overdue_s: float) -> None:
        self._url, self._records, self._render, self._overdue_s = database_url, records, render, overdue_s
        self._outage = Outage("Open pages are told nothing new; trying again")
        self._customers: dict[str, Customer] = {}
        self._owners: dict[str, str] = {}  # of the orders that somebody looks at
        self._due: dict[str, asyncio.TimerHandle] = {}  # when some of them will be late
        self._unread: set[str] = set()  # customers
        self._changed: set[str] = set()  # orders
        self._work = asyncio.Event()
        self._listening = False

    @asynccontextmanager
    async def page(self, name: str, knows: str) -> AsyncIterator[Page]:
        """A page of that customer, open for as long as the context is. It says what it knows."""
        customer = self._customers.setdefault(name, Customer())
        page = Page(customer, knows)
        customer.pages.add(page)
        if self._outage.since is not None:
            page.link("away")
        self.read(name)
        try:
            yield page
        finally:
            customer.pages.discard(page)
            if not customer.pages:
                self._forget(name)

    async def run(self) -> None:
        """Keep pages up to date until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._for_ever(self._listen))
            both.create_task(self._for_ever(self._tell))

    def changed(self, *orders: str) -> None:
        """Read these orders again, if somebody looks at them."""
        self._changed.update(self._owners.keys() & orders)
        if self._changed:
            self._work.set()

    def read(self, *customers: str) -> None:
        """Read all orders of these customers again, if they look."""
        self._unread.update(self._customers.keys() & customers)
        if self._unread:
            self._work.set()

    def _forget(self, name: str) -> None:
        for order in self._customers.pop(name).versions:
            del self._owners[order]
            self._stop_watching_the_clock(order)

    async def _for_ever(self, attempt: Callable[[], Awaitable[None]]) -> None:
        """Again and again, whatever happens."""
        pause = PAUSE_S
        while True:
            try:
                await attempt()
                pause = PAUSE_S
                continue
            except AWAY as why:
                self._away(f"Postgres at {address(self._url)}: {first_line(why)}")
            except Exception as why:
                # Not the process' end: the next one may meet the same, and orders can be taken and listed without us.
                # Pages are told that there is no news, and ask by themselves.
                log.exception("The board is broken")
                self._away(repr(why))
                pause = min(2 * pause, LONGEST_PAUSE_S)
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._url, autocommit=True, **SILENCE) as connection:
            await self._ask_to_be_told(connection)
            self.read(*self._customers)  # nobody has told us what has changed meanwhile
            self._listening = True
            self._work.set()
            try:
                while True:
                    async for notification in connection.notifies(timeout=QUIET_S):
                        self.changed(*notification.payload.split(SEPARATOR))
                    await self._ask_to_be_told(connection)
            finally:
                self._listening = False

    @staticmethod
    async def _ask_to_be_told(connection: psycopg.AsyncConnection) -> None:
        async with patience(connection):
            await connection.execute(LISTEN)

    async def _tell(self) -> None:
        await self._work.wait()
        self._work.clear()
        customers, self._unread = self._unread & self._customers.keys(), set()
        orders, self._changed = self._changed & self._owners.keys(), set()
        try:
            if customers:
                self._take_in(await self._records.of_customers([*customers]))
            if orders:
                self._take_in(await self._records.of_orders([*orders]))
        except Exception:
            self.read(*self._customers)  # all of them are told that there is no news, and when there is again
            self._work.set()
            raise
        if self._listening:
            self._outage.over()
        for name in customers & self._customers.keys():
            self._customers[name].welcome(live=self._listening)

    def _take_in(self, statuses: Iterable[Status]) -> None:
        """Tell all pages that show these orders what is new."""
        for status in statuses:
            if (customer := self._customers.get(status.customer_id)) is None:
                continue  # the last page was closed meanwhile
            self._owners[status.order_id] = status.customer_id
            self._watch_the_clock(status)
            version = status.version(self._overdue_s)
            if version <= customer.versions.get(status.order_id, -1):
                continue
            customer.versions[status.order_id] = version
            card = {status.order_id: self._render(status)}
            customer.cards |= card
            for page in customer.pages:
                if page.knows is None:
                    page.put(card)

    def _watch_the_clock(self, status: Status) -> None:
        self._stop_watching_the_clock(status.order_id)
        if status.state == "pending" and not status.late(self._overdue_s):
            left_s = self._overdue_s - status.age_s + SOON_S
            timer = asyncio.get_running_loop().call_later(left_s, self.changed, status.order_id)
            self._due[status.order_id] = timer

    def _stop_watching_the_clock(self, order: str) -> None:
        if (timer := self._due.pop(order, None)) is not None:
            timer.cancel()

    def _away(self, why: str) -> None:
        self._outage.tell(why)
        for customer in self._customers.values():
            for page in customer.pages:
                page.link("away")
