"""What surrounds every worker's loop: logging, an orderly end on SIGTERM, and patience with servers that are away.

A worker does not die because Postgres, Kafka or the gateway is away. Whatever talks to one of them raises `Unavailable`
with a sentence that names the address; an `Outage` says so in the log, paces the next attempts and tells when it is
over. Nothing here runs at import: workers are forked from a parent that has imported them.
"""

from __future__ import annotations

import logging
import os
import random
import select
import signal
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import psycopg
import uvicorn
import uvicorn.lifespan.on
import uvicorn.loops.uvloop  # these three are what uvicorn would otherwise import only in the forked child
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import IdleInTransactionSessionTimeout, ReadOnlySqlTransaction
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from pipeline.observe.logs import log_to_stderr
from pipeline.observe.process import expose, watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import HasFileno
    from starlette.applications import Starlette

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 1.0
REMINDER_S = 5.0
LOOKS = 10  # of a watchdog

# A worker frozen inside its transaction holds locks that its successor waits for. The successor's wait ends and is told
# of; the frozen one's session is ended by Postgres, and when it wakes it finds itself rolled back.
DEADLINES = "-c lock_timeout=3s -c idle_in_transaction_session_timeout=15s"

# A network that swallows everything says nothing; by default one waits for hours.
SILENCE: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 3,
    "keepalives_interval": 1,
    "keepalives_count": 3,
    "tcp_user_timeout": 5_000,
}

# What says that Postgres is away, or too busy with somebody else, and nothing about what it was asked.
AWAY = (psycopg.OperationalError, IdleInTransactionSessionTimeout, ReadOnlySqlTransaction)


class Unavailable(Exception):
    """`what` (a server and its address) did not do its part. Trying again may help, and is safe."""

    def __init__(self, what: str, why: object) -> None:
        super().__init__(f"{what}: {why}")


class Stop:
    """Becomes true when the process is asked to end; a wait that the question cuts short.

    Not `threading.Event`: its lock may be held by the very thread that the signal handler interrupts.
    """

    def __init__(self) -> None:
        self.asked = False
        self._reader, self._writer = os.pipe()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, *_: object) -> None:
        self.asked = True
        os.write(self._writer, b"\0")

    def wait(self, seconds: float, *words: HasFileno) -> None:
        """Return after `seconds`, at once when the process is asked to end, or when there is something to read."""
        select.select([self._reader, *(one.fileno() for one in words)], [], [], seconds)


class Watchdog:
    """Ends the process, with code 1, when a call under it does not return in so many `seconds`.

    For calls into libraries that may wait for ever; `what` says of whom, in the log. Whoever manages the process starts
    another. Time in which the process stands still is none.
    """

    def __init__(self, what: str, seconds: float) -> None:
        self._what, self._seconds = what, seconds
        self._calls, self._under_way = 0, False
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def __enter__(self) -> None:
        self._calls += 1
        self._under_way = True

    def __exit__(self, *_: object) -> None:
        self._under_way = False

    def _watch(self) -> None:
        looks, call = 0, 0
        while looks < LOOKS:
            time.sleep(self._seconds / LOOKS)
            looks = looks + 1 if self._under_way and call == self._calls else 0
            call = self._calls
        log.error("%s for %g s. Ending: this client will never work again.", self._what, self._seconds)
        logging.shutdown()
        os._exit(1)


class Outage:
    """Tells that something is away and what happens meanwhile, reminds every few seconds, tells when it is over."""

    def __init__(self, meanwhile: str) -> None:
        self.meanwhile = meanwhile
        self.since: float | None = None  # by the monotonic clock; None if nothing is away
        self._reminder = 0.0
        self._pause = FIRST_PAUSE_S
        watch(self)

    def tell(self, why: object) -> None:
        """Log it, unless that was done a moment ago."""
        now = time.monotonic()
        self.since = self.since or now
        if now >= self._reminder:
            log.warning("%s. %s.", why, self.meanwhile)
            self._reminder = now + REMINDER_S

    def wait(self, stop: Stop, why: object) -> None:
        """Log it and pause, longer each time: the first pause is so short that a mere reconnect costs nothing.

        By chance up to half as long, so that workers who lost the same server do not come back all at once.
        """
        self.tell(why)
        stop.wait(random.uniform(self._pause / 2, self._pause))  # noqa: S311 - nothing to guess
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)

    def over(self) -> None:
        """Log that work goes on, if it had stopped."""
        if self.since is not None:
            log.warning("Back after %.1f s.", time.monotonic() - self.since)
            self.since, self._reminder, self._pause = None, 0.0, FIRST_PAUSE_S

    def until(self, stop: Stop, attempt: Callable[[], object]) -> None:
        """Repeat `attempt` until it no longer raises `Unavailable`; end the process if asked to meanwhile."""
        while not stop.asked:
            try:
                attempt()
            except Unavailable as why:
                self.wait(stop, why)
            else:
                return self.over()
        sys.exit(0)


class Database:
    """One connection to Postgres, made anew after it broke. Statements outside `transaction` commit by themselves."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._name = f"Postgres at {address(url)}"
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def connection(self) -> Iterator[psycopg.Connection]:
        """A connection that works as far as we know. A failure drops it and surfaces as `Unavailable`."""
        try:
            yield self._connected()
        except AWAY as why:
            self.close()
            raise Unavailable(self._name, first_line(why)) from why

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """`connection`, with everything inside in one transaction."""
        with self.connection() as connection, connection.transaction():
            yield connection

    def connect(self) -> None:
        """Make the connection now rather than at first use."""
        with self.connection():
            pass

    def close(self) -> None:
        """Drop the connection; the next use makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connected(self) -> psycopg.Connection:
        if self._connection is None:
            self._connection = psycopg.connect(self._url, autocommit=True, options=DEADLINES, **SILENCE)
        return self._connection


def address(url: str) -> str:
    """Where a Postgres is, without the password."""
    parts = conninfo_to_dict(url)
    return f"{parts.get('host', 'localhost')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}"


def begin(worker: str, *, exposing: bool = True) -> None:
    """What every worker does first: log to stderr, and tell METRICS_PORT what it does.

    Not `exposing` is a tool that ends by itself: nobody scrapes it, and the port in its environment is a worker's.
    """
    log_to_stderr(worker)
    if exposing:
        expose()


def serve(app: Starlette, port: int) -> None:
    """Answer HTTP on 127.0.0.1 until SIGTERM, then finish what is in progress (3 s at most) and exit with 0."""
    # After its orderly end uvicorn raises the signal anew for whoever handled it before, which would kill us with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http=HttpToolsProtocol,
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        timeout_keep_alive=75,  # the default, 5 s, hangs up on clients that are about to ask again
        timeout_graceful_shutdown=3,
    )


def first_line(why: Exception) -> str:
    """What matters of libpq's messages, which go on to ask questions."""
    return str(why).partition("\n")[0]
