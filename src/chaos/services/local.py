"""Servers on this machine, by default as plain processes: no Docker, no root, nothing installed by hand.

`Local` starts what is asked for, side by side, at first use; what starts them in containers, `chaos.services.docker`
says. `External` (`chaos.services.external`) has the same attributes for servers that somebody else runs.
"""

from __future__ import annotations

import functools
import threading
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from chaos.services.cache import Cache, Progress, silent
from chaos.services.kafka import Kafka, start_kafka
from chaos.services.postgres import Postgres, start_postgres
from chaos.services.toxiproxy import Toxiproxy, start_toxiproxy
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from chaos.workers.supervisor import Supervisor

    Starters: TypeAlias = Mapping[str, Callable[[Supervisor, Cache, Deadline], Any]]

# Long enough for the first run on a slow line: 44 MB of jars and, for Toxiproxy, a compiler's work.
_START_S = 240.0
_WITH_DATA = {"postgres": start_postgres, "kafka": start_kafka}
PROCESSES: Starters = {**_WITH_DATA, "toxiproxy": start_toxiproxy}


def in_rooms(megabytes: int) -> Starters:
    """What starts each server as a plain process whose data is in a small file system of its own."""
    roomy = {name: functools.partial(start, room_mb=megabytes) for name, start in _WITH_DATA.items()}
    return {**PROCESSES, **roomy}


class Local:
    """Postgres, Kafka and Toxiproxy of our own, each started when first asked for; they end with the supervisor."""

    def __init__(self, supervisor: Supervisor, *, starters: Starters = PROCESSES, progress: Progress = silent) -> None:
        self._supervisor, self._starters = supervisor, starters
        self._cache = Cache(supervisor.own, progress=progress)
        self._started: dict[str, Future[Any]] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(len(starters), "onecharge-start")

    def start(self, *names: str) -> None:
        """Have the servers `names` running, of "postgres", "kafka" and "toxiproxy"; those missing start side by side.

        What cannot be started is said at once, not after the others' downloads; a later call tries it again.
        """
        with self._lock:
            for name in names:
                if name not in self._started or _failed(self._started[name]):
                    deadline = Deadline(_START_S)
                    self._started[name] = self._pool.submit(
                        self._starters[name], self._supervisor, self._cache, deadline
                    )
            waiting = [self._started[name] for name in names]
        for started in as_completed(waiting):
            started.result()

    def another_toxiproxy(self) -> Toxiproxy:
        """A Toxiproxy for whoever needs one of their own, who ends it."""
        server: Toxiproxy = self._starters["toxiproxy"](self._supervisor, self._cache, Deadline(_START_S))
        return server

    def end(self) -> None:
        """End the servers, whatever has befallen them; their data, and the leases of their ports."""
        self._pool.shutdown(cancel_futures=True)
        for started in self._started.values():
            if not started.cancelled() and not _failed(started):
                server = started.result()
                if not server.ended:
                    server.kill()
                server.forget()
        self.close()

    def close(self) -> None:
        """End the leases of the servers' ports; the servers themselves end with the supervisor."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for started in self._started.values():
            started.add_done_callback(_release)

    def _server(self, name: str) -> Any:
        self.start(name)
        return self._started[name].result()

    @property
    def postgres(self) -> Postgres:
        """The Postgres server."""
        server: Postgres = self._server("postgres")
        return server

    @property
    def kafka(self) -> Kafka:
        """The Kafka broker."""
        server: Kafka = self._server("kafka")
        return server

    @property
    def toxiproxy(self) -> Toxiproxy:
        """The Toxiproxy server."""
        server: Toxiproxy = self._server("toxiproxy")
        return server


def _failed(started: Future[Any]) -> bool:
    return started.done() and started.exception() is not None


def _release(started: Future[Any]) -> None:
    if not started.cancelled() and not _failed(started):
        started.result().release()
