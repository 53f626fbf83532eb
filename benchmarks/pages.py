"""How soon the page's customers see what is, and how many of them one process serves.

In a browser, one order after the other, while `clients` others are connected to the stream:

pending_ms_p95, _median     from the click until the order is on the page, as pending
confirmed_ms_p95, _median   from before the statement that confirms an order until the page shows it

The clients are customers with an order each, that speak to the stream as a browser does:

told_ms_p95                 from before the statement that confirms an order until its customer has been told
crowd                       customers connected at once
crowd_missed                how many of them were not told a change of theirs, of two
crowd_told_ms               from before a statement that changes all their orders until the last one has been told
kb_per_client               memory of the page's process alone (unique set), divided by them
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
from playwright.async_api import async_playwright

from benchmarks.report import arguments, report
from chaos.services.ports import lease_port
from chaos.session import Session
from chaos.waiting import Deadline, wait_until
from tests.fix_browser import NAMES, QUIET
from tests.fix_pipeline import SCHEMA

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncIterator, Sequence

    from playwright.async_api import Page

    from chaos import Lane

PATIENCE_S = 60.0
PENDING, PAID, CONFIRMED = 0, 2, 6  # versions
VERSION = re.compile(rb'data-version="([0-9]+)"')
GOODS = "insert into goods values ('mug', 'Mug', 1290, 'EUR')"
ORDERS = """
    insert into orders select 'order-' || n, lpad(to_hex(n), 32, '0'), 'mug', 1, 1290, 'EUR'
    from generate_series(0, %s - 1) n
"""
PAY_ALL = "update orders set payment = 'charged' where order_id like 'order-%'"
CONFIRM = "update orders set payment = 'charged', stock = 'reserved', state = 'confirmed' where order_id = %s"
AS_NEW = "update orders set payment = null, stock = null, state = 'pending', created_at = now()"
CONFIRM_ALL = "update orders set stock = 'reserved', state = 'confirmed' where order_id like 'order-%'"
WATCH = """
    window.seen = {};
    new MutationObserver(() => {
        for (const card of document.querySelectorAll("#orders > .card")) {
            const name = card.id + " " + card.classList[1];
            window.seen[name] ??= performance.timeOrigin + performance.now();
        }
    }).observe(document.getElementById("orders"), { childList: true });
    document.addEventListener("click", () => { window.clicked = performance.timeOrigin + performance.now(); }, true);
"""


class Client:
    """A customer on the stream, and when it was told of each state of its order."""

    def __init__(self, number: int) -> None:
        self.order, self._customer = f"order-{number}", f"{number:032x}"
        self.told: dict[int, float] = {}
        self._changed = asyncio.Event()

    async def connect(self, port: int) -> None:
        """Connect, and read on."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        request = f"GET /changes HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nCookie: customer={self._customer}\r\n\r\n"
        self._writer.write(request.encode())
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while line := await reader.readline():
            if found := VERSION.search(line):
                self.told[int(found[1])] = time.perf_counter()
                self._changed.set()

    async def knows(self, version: int) -> float:
        """Wait until it was told that much; when it was, by `time.perf_counter`."""
        while version not in self.told:
            self._changed.clear()
            await self._changed.wait()
        return self.told[version]

    def close(self) -> None:
        """Hang up."""
        self._reading.cancel()
        self._writer.close()


def served(session: Session, lane: Lane) -> tuple[int, psutil.Process]:
    """API and page, listening; the page's port and process."""
    api, page = lease_port(), lease_port()
    env = {**os.environ, "DATABASE_URL": lane.postgres, "API_URL": f"http://{api.address}"}
    for name, port in (("api", api), ("display", page)):
        started = session.supervisor.spawn(
            name, [sys.executable, "-m", "pipeline", name], env=env | {"PORT": str(port)}, cwd=Path.cwd()
        )
        ready = partial(listens, port.number)
        wait_until(f"the {name} to listen", ready, Deadline(PATIENCE_S), logs=[started.log])
    return page.number, psutil.Process(started.pid)


def listens(port: int) -> bool:
    """Whether somebody does."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@contextlib.asynccontextmanager
async def crowd(port: int, count: int) -> AsyncIterator[list[Client]]:
    """So many customers, who have been told of their order."""
    clients = [Client(number) for number in range(count)]
    for client in clients:
        await client.connect(port)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(client.knows(PENDING) for client in clients))
    yield clients
    for client in clients:
        client.close()


async def shown(page: Page, look: str, card: str = "order-") -> tuple[str, float]:
    """Wait until the page shows such a card; its id, and when it did, in ms since the epoch by the page's clock."""
    found = await page.wait_for_function(
        "([look, card]) => Object.entries(seen).find(([name]) => name.startsWith(card) && name.endsWith(look))",
        arg=[look, card],
        polling=100,  # at each frame, as is the default, has the browser draw one after the other
    )
    name, at = await found.json_value()
    return str(name).partition(" ")[0], float(at)


async def in_a_browser(page: Page, db: psycopg.AsyncConnection, count: int) -> dict[str, float]:
    """Order, and have it confirmed, so often."""
    pending, confirmed = [], []
    for _ in range(count):
        await page.reload()
        await page.evaluate(WATCH)
        await page.wait_for_function("true")  # brings playwright's own script in, which is not the page's work
        await page.evaluate("new Promise(requestIdleCallback)")  # who clicks has seen the page
        await page.get_by_role("button", name="Order").click()
        card, at = await shown(page, "pending")
        pending.append(at - float(await page.evaluate("window.clicked")))
        began = time.time() * 1000
        await db.execute(CONFIRM, [card.removeprefix("order-")])
        confirmed.append((await shown(page, "confirmed", card))[1] - began)
    return {
        "pending_ms_median": statistics.median(pending),
        "pending_ms_p95": p95(pending),
        "confirmed_ms_median": statistics.median(confirmed),
        "confirmed_ms_p95": p95(confirmed),
    }


def p95(values: Sequence[float]) -> float:
    """What nineteen of twenty are below."""
    return statistics.quantiles(values, n=20)[-1]


async def one_by_one(clients: Sequence[Client], db: psycopg.AsyncConnection, per_s: float) -> list[float]:
    """Confirm each one's order, at a steady rate; ms until each was told."""
    sent = []
    began = time.perf_counter()
    for number, client in enumerate(clients):
        await asyncio.sleep(began + number / per_s - time.perf_counter())
        sent.append(time.perf_counter())
        await db.execute(CONFIRM, [client.order])
    async with asyncio.timeout(PATIENCE_S):
        told = [await client.knows(CONFIRMED) for client in clients]
    return [1000 * (after - before) for before, after in zip(sent, told, strict=True)]


async def all_at_once(clients: Sequence[Client], db: psycopg.AsyncConnection) -> dict[str, float]:
    """Change all orders, twice."""
    took, missed = [], 0
    for statement, version in ((PAY_ALL, PAID), (CONFIRM_ALL, CONFIRMED)):
        began = time.perf_counter()
        await db.execute(statement)
        waiting = [asyncio.create_task(client.knows(version)) for client in clients]
        done, left = await asyncio.wait(waiting, timeout=PATIENCE_S)
        missed += len(left)
        for task in left:
            task.cancel()
        took.append(1000 * (max((task.result() for task in done), default=began) - began))
    return {"crowd": len(clients), "crowd_missed": missed, "crowd_told_ms": max(took)}


async def measure(session: Session, lane: Lane, options: argparse.Namespace) -> dict[str, float]:
    """All of it."""
    port, process = served(session, lane)
    chromium = next(filter(None, map(shutil.which, NAMES)), None)
    async with (
        await psycopg.AsyncConnection.connect(lane.postgres, autocommit=True) as db,
        async_playwright() as playwright,
    ):
        await db.execute(GOODS)
        browser = await playwright.chromium.launch(executable_path=chromium, args=[*QUIET, "--no-sandbox"])
        page = await browser.new_page(bypass_csp=True)  # for who waits for functions
        await page.goto(f"http://127.0.0.1:{port}/")
        await in_a_browser(page, db, 3)  # warm
        await db.execute(ORDERS, [options.crowd])
        async with crowd(port, options.clients) as clients:
            figures = {"clients": options.clients, **await in_a_browser(page, db, options.orders)}
            figures["told_ms_p95"] = p95(await one_by_one(clients, db, 100))
        await browser.close()
        await db.execute(AS_NEW)
        before = process.memory_full_info().uss
        async with crowd(port, options.crowd) as clients:
            figures |= await all_at_once(clients, db)
            used = process.memory_full_info().uss - before
    return figures | {"kb_per_client": used / 1024 / options.crowd}


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--orders", type=int, default=100, help="in the browser (default: 100)")
    parser.add_argument("--clients", type=int, default=500, help="connected meanwhile (default: 500)")
    parser.add_argument("--crowd", type=int, default=2_000, help="connected at once (default: 2,000)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="pages-") as directory,
        Session(Path(directory)) as session,
        session.lane(schema=SCHEMA) as lane,
    ):
        figures = asyncio.run(measure(session, lane, options))
    report(figures, options.json)


if __name__ == "__main__":
    main()
