"""Servers as processes on this machine: no Docker, no root, nothing installed by hand. The default.

`Local` starts what is asked for, side by side, at first use; `External` (`chaos.services.external`) has the same
three attributes for servers that somebody else runs.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from chaos.services.cache import Cache, Progress, silent
from chaos.services.kafka import Kafka, start_kafka
from chaos.services.postgres import Postgres, start_postgres
from chaos.services.toxiproxy import Toxiproxy, start_toxiproxy
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.workers.supervisor import Supervisor

# Long enough for the first run on a slow line: 44 MB of jars and, for Toxiproxy, a compiler's work.
_START_S = 240.0
_STARTERS: dict[str, Callable[[Supervisor, Cache, Deadline], Any]] = {
    "postgres": start_postgres,
    "kafka": start_kafka,
    "toxiproxy": start_toxiproxy,
}


class Local:
    """Postgres, Kafka and Toxiproxy of our own, each started when first asked for; they end with the supervisor."""

    def __init__(self, supervisor: Supervisor, *, progress: Progress = silent) -> None:
        self._supervisor = supervisor
        self._cache = Cache(supervisor.own, progress=progress)
        self._servers: dict[str, Any] = {}
        self._lock = threading.Lock()

    def start(self, *names: str) -> None:
        """Have the servers `names` running, of "postgres", "kafka" and "toxiproxy"; those missing start side by side."""
        deadline = Deadline(_START_S)
        with self._lock:
            missing = [name for name in names if name not in self._servers]
            pool = ThreadPoolExecutor(len(_STARTERS))
            starting = {pool.submit(_STARTERS[name], self._supervisor, self._cache, deadline): name for name in missing}
            try:
                for started in as_completed(starting):
                    self._servers[starting[started]] = started.result()
            finally:
                pool.shutdown(wait=False)  # what is missing is said at once, not after the others' downloads

    def close(self) -> None:
        """End the leases of the servers' ports; the servers themselves end with the supervisor."""
        for server in self._servers.values():
            server.release()

    @property
    def postgres(self) -> Postgres:
        """The Postgres server."""
        self.start("postgres")
        server: Postgres = self._servers["postgres"]
        return server

    @property
    def kafka(self) -> Kafka:
        """The Kafka broker."""
        self.start("kafka")
        server: Kafka = self._servers["kafka"]
        return server

    @property
    def toxiproxy(self) -> Toxiproxy:
        """The Toxiproxy server."""
        self.start("toxiproxy")
        server: Toxiproxy = self._servers["toxiproxy"]
        return server
