"""Pages that are not true, and a list that lags: `lagging` is no bug, it is what a page has to live with.

Twins of the server: `optimistic` shows what it expects, `forgetful` believes its list, `rekeying` asks again as if for
another order, `slow` keeps its customers waiting, `unwelcoming` does not tell who was away, `timeless` has no clock,
and `spinning` waits for the event that has been given up. Of the script: `doubling` orders on each click of a double
one, `backwards` shows what comes last, whatever its version, `replacing` shows nothing but what comes last.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from pipeline.display import board, page, shop
from pipeline.display.asking import Api
from pipeline.display.board import Board, Customer
from pipeline.display.cookies import new_key
from pipeline.display.shop import Shop
from pipeline.display.status import Records

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from starlette.types import Scope

    from pipeline.display.asking import Accepted, Refused, Unknown
    from pipeline.display.cookies import Note
    from pipeline.display.status import Status
    from pipeline.settings import DisplaySettings

SCRIPT = "display.js"
SLOW_S = 3.0  # less than the browser waits
DOUBLING = """
document.addEventListener("click", (event) => {
  if (event.detail !== 2 || !event.target.closest("#ask button")) return;
  const asked = new URLSearchParams(new FormData(document.getElementById("ask")));
  asked.set("key", crypto.randomUUID());  // BUG: a double click is one
  fetch("/orders", { method: "POST", body: asked, headers: { "HX-Request": "true" } });
}, true);
"""
MERGE = """
htmx.defineExtension("orders", {
  isInlineSwap: (style) => style === "merge",
  handleSwap(style, _target, fragment) {
    if (style !== "merge") return false;
    const cards = [...fragment.querySelectorAll("[data-version]")];
    const orders = document.getElementById("orders");
    %s
    return cards;
  },
});
"""
BACKWARDS = """
    for (const card of cards) {
      document.getElementById(card.id)?.remove();  // BUG: should look which of the two is newer
      orders.prepend(card);
    }
"""
REPLACING = """
    orders.replaceChildren(...cards);  // BUG: should keep what is not among them
"""


class Replica(Records):
    """Has no order before it has ended."""

    async def of_orders(self, orders: Sequence[str]) -> list[Status]:
        """Not the latest."""
        return [status for status in await super().of_orders(orders) if status.state != "pending"]

    async def of_customers(self, customers: Sequence[str]) -> list[Status]:
        """Not the latest."""
        return [status for status in await super().of_customers(customers) if status.state != "pending"]


class Lagging(Shop):
    """Reads its lists from a replica."""

    def __init__(self, settings: DisplaySettings) -> None:
        super().__init__(settings)
        self.records = Replica(self.pool)


class Forgetful(Lagging):
    """Is not told of what was accepted."""

    async def look(self, customer: str, notes: Sequence[Note]) -> list[Status]:  # noqa: ARG002
        """BUG: should show what was accepted, whether or not it is in the list by now."""
        return await super().look(customer, [])


class Optimistic(Shop):
    """Spares its customers the wait."""

    def accepted(self, customer: str, note: Note) -> Status:
        """BUG: should say no more than the API has."""
        return super().accepted(customer, note)._replace(state="confirmed")


class RekeyingApi(Api):
    """Asks, each time under another key."""

    async def ask(self, key: str, order: Mapping[str, object]) -> Accepted | Refused | Unknown:  # noqa: ARG002
        """BUG: should ask under the key that it is given."""
        return await super().ask(new_key(), order)


class Rekeying(Shop):
    """Asks the API by it."""

    def __init__(self, settings: DisplaySettings) -> None:
        super().__init__(settings)
        self.api = RekeyingApi(settings.api_url, settings.api_timeout_s)


class SlowApi(Api):
    """Asks, when it comes to that."""

    async def ask(self, key: str, order: Mapping[str, object]) -> Accepted | Refused | Unknown:
        """BUG: should ask at once."""
        await asyncio.sleep(SLOW_S)
        return await super().ask(key, order)


class Slow(Shop):
    """Asks the API by it."""

    def __init__(self, settings: DisplaySettings) -> None:
        super().__init__(settings)
        self.api = SlowApi(settings.api_url, settings.api_timeout_s)


class Unwelcome(Customer):
    """Whose pages are told of what happens while they are there."""

    def welcome(self, *told: Any, **more: Any) -> None:
        """BUG: should tell who has just come what they do not know."""
        for one in self.pages:
            one.knows = None
        super().welcome(*told, **more)


class Timeless(Board):
    """Looks at orders when something has happened."""

    def _watch_the_clock(self, status: Status) -> None:
        """BUG: should look again when it is late."""


class Unresolved(Records):
    """Takes orders for pending that the reconciler has told how they went."""

    async def of_orders(self, orders: Sequence[str]) -> list[Status]:
        """BUG: should take their states for what they are, whoever has found out."""
        return [unresolved(status) for status in await super().of_orders(orders)]

    async def of_customers(self, customers: Sequence[str]) -> list[Status]:
        """BUG: likewise."""
        return [unresolved(status) for status in await super().of_customers(customers)]


def unresolved(status: Status) -> Status:
    """As it was before the reconciler came."""
    return status._replace(state="pending", payment=None, looked_up=False) if status.looked_up else status


class Spinning(Shop):
    """Shows those."""

    def __init__(self, settings: DisplaySettings) -> None:
        super().__init__(settings)
        self.records = self.board._records = Unresolved(self.pool)


def lagging() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Lagging)


def forgetful() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Forgetful)


def optimistic() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Optimistic)


def rekeying() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Rekeying)


def slow() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Slow)


def unwelcoming() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    board.Customer = Unwelcome  # type: ignore[misc]
    page.run()


def timeless() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    shop.Board = Timeless  # type: ignore[attr-defined]
    page.run()


def spinning() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    page.run(Spinning)


def doubling() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    run_with(DOUBLING)


def backwards() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    run_with(MERGE % BACKWARDS)


def replacing() -> None:
    """Run it in the place of `pipeline.display.page:main`."""
    run_with(MERGE % REPLACING)


def run_with(script: str) -> None:
    """Run the page, whose script goes on with this one."""
    original = Path(page.STATIC, SCRIPT).read_text(encoding="utf-8")

    class Scripted(StaticFiles):
        async def get_response(self, path: str, scope: Scope) -> Response:
            if path != SCRIPT:
                return await super().get_response(path, scope)
            return Response(original + script, media_type="text/javascript")

    page.StaticFiles = Scripted  # type: ignore[attr-defined]
    page.run()
