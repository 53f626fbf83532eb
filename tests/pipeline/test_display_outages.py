"""The page while Postgres is away, or silent: it says what it knows, and that this is not all there is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.errors import ReadOnlySqlTransaction

from pipeline.display.board import Board
from pipeline.display.shop import Shop
from pipeline.runtime import SILENCE
from pipeline.settings import DisplaySettings
from tests.pipeline.customers import MUG, ORDER, Line, Stream, Visits, customer, looks
from tests.pipeline.workers import free_port, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos import Lane
    from pipeline.display.status import Status

NOTED = "offer=1290+EUR+mug&quantity=2&at="
UNREAD = "We cannot read your orders at the moment."
CONFIRM = "update orders set payment = 'charged', stock = 'reserved', state = 'confirmed'"
KILL = """
    select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database()
    and (query ilike '%%order_status%%' or query ilike '%%from goods%%' or query = '')
    and pid <> pg_backend_pid() and application_name <> 'onecharge'
"""


def test_postgres_is_away(visit: Visits) -> None:
    """What was accepted is shown as that and no more, nothing is said of what there is not, and it is asked again."""
    browser, order = visit(DATABASE_URL=f"postgresql://x@127.0.0.1:{free_port()}/x"), str(uuid4())
    browser.cookies.set(f"order-{order}", f"{NOTED}{int(time.time()) - 3000}")
    page = browser.get("/")
    assert page.status_code == 200
    assert f">{UNREAD}" in page.text
    assert looks(page.text) == ["accepted"]
    assert '<p class="none" hidden>' in page.text
    assert 'http-equiv="refresh"' in page.text
    orders = browser.get("/orders")
    assert (orders.status_code, looks(orders.text)) == (503, ["accepted"])


def test_one_outage_is_logged_as_one(visit: Visits) -> None:
    """The log says once that Postgres is away, and not for each attempt to reach it."""
    nowhere = free_port()
    browser = visit(DATABASE_URL=f"postgresql://x@127.0.0.1:{nowhere}/x")
    browser.get("/")
    assert visit.worker.said(f"Postgres at 127.0.0.1:{nowhere}/x: .*Pages are without what Postgres knows")
    assert "error connecting" not in visit.worker.log


def test_a_connection_that_has_died_meanwhile(visit: Visits, shop: psycopg.Connection) -> None:
    """Postgres was restarted and is there: nobody is told that it is away, though connections from before are dead."""
    browser = visit()
    shop.execute(ORDER, [str(uuid4()), customer(browser), "pending", None, None, 1])
    assert shop.execute(KILL).fetchall()
    answer = browser.get("/orders")
    assert (answer.status_code, looks(answer.text)) == (200, ["pending"])


def test_a_connection_to_postgres_that_is_lost(visit: Visits, shop: psycopg.Connection) -> None:
    """Whatever happens while nobody can tell us is told when we are back."""
    browser = visit()
    shop.execute(ORDER, [str(uuid4()), customer(browser), "pending", None, None, 1])
    stream = Stream(browser)
    assert looks(stream.next()[0]) == ["pending"]
    listens = "select pid from pg_stat_activity where query = 'listen orders'"
    [(pid,)] = until(lambda: shop.execute(listens).fetchall())
    with shop.transaction():
        shop.execute("select pg_terminate_backend(%s)", [pid])
        shop.execute("alter table orders disable trigger orders_told")
        shop.execute("update orders set state = 'failed', payment = 'declined', stock = 'reserved'")
        shop.execute("alter table orders enable trigger orders_told")
    assert looks(stream.next()[0]) == ["failed"]
    stream.close()


def test_an_outage_is_told_to_open_pages(visit: Visits, shop: psycopg.Connection, lane: Lane) -> None:
    """A page is told that there is no news, also one that is opened then; and when there is again, with what it was."""
    line = Line(lane.postgres)
    browser = visit(DATABASE_URL=line.url)
    shop.execute(ORDER, [str(uuid4()), customer(browser), "pending", None, None, 1])
    stream = Stream(browser)
    assert looks(stream.next()[0]) == ["pending"]
    assert stream.next("link")[0] == "live"
    line.cut()
    assert stream.next("link")[0] == "away"
    late = Stream(browser)
    assert late.next("link")[0] == "away"
    shop.execute(CONFIRM)
    line.mend()
    assert looks(stream.next()[0]) == looks(late.next()[0]) == ["confirmed"]
    assert stream.next("link")[0] == late.next("link")[0] == "live"
    stream.close()
    late.close()


def test_silence_is_no_news(visit: Visits, shop: psycopg.Connection, lane: Lane) -> None:
    """Where no packet arrives and no connection breaks pages are told so, and one that is opened says so, too."""
    line = Line(lane.postgres)
    browser = visit(DATABASE_URL=line.url)
    shop.execute(ORDER, [str(uuid4()), customer(browser), "confirmed", "charged", "reserved", 1])  # and never late
    stream = Stream(browser)
    assert stream.next("link")[0] == "live"
    line.silent = True
    assert stream.next("link")[0] == "away"
    assert UNREAD in browser.get("/", timeout=60).text
    line.cut()
    line.mend()
    assert stream.next("link")[0] == "live"
    stream.close()


class Faulty:
    """Records, of which some cannot be read at first."""

    def __init__(self, error: Exception) -> None:
        self.errors = [error, error]

    async def of_customers(self, _: Sequence[str]) -> list[Status]:
        """None, if it can."""
        if self.errors:
            raise self.errors.pop()
        return []

    of_orders = of_customers


def settings(lane: Lane) -> DisplaySettings:
    """For what runs within the test."""
    assert lane.postgres is not None
    return DisplaySettings(database_url=lane.postgres, port=1, api_url="http://127.0.0.1:1")


async def told(board: Board, expected: str) -> list[str]:
    """What a page is told of the link, until it is told that."""
    running, seen = asyncio.create_task(board.run()), list[str]()
    async with asyncio.timeout(20), board.page("somebody", "") as page:
        while seen[-1:] != [expected]:
            seen += [message.data for message in await page.told() if message.event == "link"]
            assert not running.done()
    running.cancel()
    return seen


ERRORS = [psycopg.OperationalError("away"), ReadOnlySqlTransaction("read only"), ValueError("nobody thought of it")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("where", ["reading", "listening"])
def test_the_board_goes_on(monkeypatch: pytest.MonkeyPatch, lane: Lane, error: Exception, where: str) -> None:
    """Whatever goes wrong, pages are told that there is no news, and are told news again when it is right."""
    records, connect, errors = Faulty(error), psycopg.AsyncConnection.connect, [error] * 2

    async def fail_first(*args: Any, **options: Any) -> Any:
        assert options.items() >= SILENCE.items()
        if errors:
            raise errors.pop()
        return await connect(*args, **options)

    if where == "listening":
        records.errors.clear()
        monkeypatch.setattr(psycopg.AsyncConnection, "connect", fail_first)
    board = Board(settings(lane).database_url, records, str, 30)  # type: ignore[arg-type]
    assert asyncio.run(told(board, "live"))[-2:] == ["away", "live"]


def test_connections_notice_that_nobody_is_there(lane: Lane) -> None:
    """Those that requests use end by themselves, where a network swallows everything."""

    async def options() -> object:
        return Shop(settings(lane)).pool.kwargs

    assert asyncio.run(options()) == {"autocommit": True, **SILENCE}


def test_without_goods_nobody_knows(visit: Visits) -> None:
    """Where it is not known what there is to buy, nothing is refused for not being there."""
    browser = visit(DATABASE_URL=f"postgresql://x@127.0.0.1:{free_port()}/x")
    answer = browser.post("/orders", data=MUG, headers={"HX-Request": "true"})
    assert (answer.status_code, looks(answer.text)) == (503, ["unknown"])
