"""Customers of the page without a browser's engine: what they send, what they are shown and told, and a line to cut."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import httpx
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.pipeline.workers import PATIENCE_S, Worker, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from tests.pipeline.workers import Start

MERGING = {"HX-Request": "true"}
KEY = "0123456789abcdef" * 2
OFFER = "1290 EUR mug"
MUG = {"key": KEY, "offer": OFFER, "quantity": "2"}
ORDER = "insert into orders values (%s, %s, 'mug', 2, 2580, 'EUR', %s, %s, %s, 1, now() - make_interval(secs => %s))"


class Visits:
    """Customers of a page, whose settings may differ; each has their own browser. `worker` is the latest's page."""

    worker: Worker

    def __init__(self, start: Start, env: dict[str, object]) -> None:
        self._start, self._env = start, env
        self.browsers: list[httpx.Client] = []

    def __call__(self, **env: object) -> httpx.Client:
        """Somebody new."""
        self.worker = self._start("display", **self._env | {"PORT": free_port()} | env).listening()
        self.browsers.append(httpx.Client(base_url=f"http://127.0.0.1:{self.worker.port}", timeout=PATIENCE_S))
        return self.browsers[-1]


@contextmanager
def visiting(start: Start, database_url: str | None, api: Worker) -> Iterator[Visits]:
    """Customers, until the context ends."""
    visits = Visits(start, {"DATABASE_URL": database_url, "API_URL": f"http://127.0.0.1:{api.port}"})
    yield visits
    for browser in visits.browsers:
        browser.close()


def stock_up(db: psycopg.Connection) -> psycopg.Connection:
    """Something to buy, and no orders' past."""
    db.execute("truncate goods, refunds, reconciliations")
    db.execute("insert into goods values ('mug', 'Mug', 1290, 'EUR'), ('pot', 'Pot <b>', 5000, 'EUR')")
    return db


def customer(browser: httpx.Client) -> str:
    """Who this is, for the server."""
    browser.get("/").raise_for_status()
    return browser.cookies["customer"]


def stored(db: psycopg.Connection) -> list[tuple[object, ...]]:
    """What was ordered."""
    return db.execute("select sku, quantity, amount, currency from orders").fetchall()


def looks(html: str) -> list[str]:
    """Of the cards, in their order."""
    return re.findall(r'class="card (\w+)"', html.partition("<template")[0])


class Stream:
    """What a page is told, as it comes."""

    def __init__(self, browser: httpx.Client, knows: str = "") -> None:
        headers = {"Last-Event-ID": knows} if knows else {}
        self._context = browser.stream("GET", "/changes", headers=headers, timeout=3 * PATIENCE_S)
        self._lines = self._context.__enter__().iter_lines()

    def next(self, event: str = "order") -> tuple[str, str]:
        """The next message's data and id, of this kind of message."""
        told: dict[str, list[str]] = {}
        for line in self._lines:
            field, _, value = line.partition(": ")
            told.setdefault(field, []).append(value)
            if not line:
                if told.get("event") == [event]:
                    return "\n".join(told["data"]), "".join(told.get("id", []))
                told = {}
        raise AssertionError("the stream has ended")

    def close(self) -> None:
        """Hang up."""
        self._context.__exit__(None, None, None)


class Line:
    """Leads to a Postgres, and can be cut, or fall silent as a network does that swallows everything."""

    def __init__(self, database_url: str | None) -> None:
        assert database_url is not None
        parts = conninfo_to_dict(database_url)
        self._server = (str(parts["host"]), int(str(parts["port"])))
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.url = make_conninfo(database_url, port=self._listener.getsockname()[1])
        self._ends: list[socket.socket] = []
        self._cut, self.silent = False, False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection, and every one to come."""
        self._cut = True
        for end in self._ends:
            with suppress(OSError):  # it has ended by itself, now or before
                end.shutdown(socket.SHUT_RDWR)
        self._ends.clear()

    def mend(self) -> None:
        """Let new connections through."""
        self._cut = self.silent = False

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._cut:
                client.close()
                continue
            server = socket.create_connection(self._server)
            self._ends += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._copy, args=(source, sink), daemon=True).start()

    def _copy(self, source: socket.socket, sink: socket.socket) -> None:
        with source, sink:
            try:
                while data := source.recv(65536):
                    if not self.silent:
                        sink.sendall(data)
            except OSError:
                pass
