"""What a test run shares: one supervisor, its servers, and the lanes made on them.

`Session` is what the pytest fixture ``onecharge`` hands out. It can be used without pytest::

    with chaos.Session(Path("artifacts")) as session, session.lane(schema="schema.sql") as lane:
        ...
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import secrets
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from filelock import FileLock, Timeout

from chaos.errors import ChaosError, UnknownName
from chaos.lane import Lane
from chaos.lanes import Lanes
from chaos.services.cache import Progress, silent
from chaos.services.docker import Docker
from chaos.services.external import External
from chaos.services.local import PROCESSES, Local, in_rooms
from chaos.sweep import Shard
from chaos.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from chaos.errors import Told
    from chaos.lanes import Make
    from chaos.services.kafka import Kafka
    from chaos.services.postgres import Postgres

SERVICES: Final = ("local", "docker")


class Session:
    """Servers are started when a lane first needs them, and end with the session.

    Args:
        directory: where command lines are run and relative `schema` files are looked for; by default the current one.
        output: a directory for logs and ledgers, which are kept; those of the run before are
            removed. One run at a time can use it.
        postgres: DSN of a Postgres that you run; the user must be allowed to create databases.
        kafka: bootstrap servers of a Kafka that you run.
        services: what servers of our own are: ``local``, plain processes; or ``docker``, containers, which needs an
            engine on this machine, its images and ``onecharge[docker]``.
        images: the image of each server that is not to be the official one: `chaos.services.docker.IMAGES`.
        progress: told about slow steps of a first run, such as downloads.
        on_verdict: told each drill's verdict.
        lanes: how many systems of one kind are run side by side, where that is asked for.
        shard: which part of their schedules sweeps carry out, such as ``2/8``.
        live: told how far a sweep or an exploration is, after each schedule.
    """

    def __init__(
        self,
        output: Path,
        *,
        directory: Path | None = None,
        postgres: str | None = None,
        kafka: str | None = None,
        services: Literal["local", "docker"] = "local",
        images: Mapping[str, str] = MappingProxyType({}),
        progress: Progress = silent,
        on_verdict: Callable[[Told], None] = lambda _verdict: None,
        lanes: int = 1,
        shard: str = "1/1",
        live: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self.output = output.absolute()
        self.directory = (directory or Path.cwd()).absolute()
        self.on_verdict = on_verdict
        if services not in SERVICES:
            raise UnknownName("kind of services", services, SERVICES)
        if lanes < 1:
            raise ChaosError(f"{lanes} lanes: expected at least one")
        self.count, self.shard, self.live = lanes, Shard.parse(shard), live
        self.supervisor = Supervisor(self.output / "logs")
        self._kind, self._docker = services, Docker(self.supervisor, images)
        starters = self._docker.starters if services == "docker" else PROCESSES
        self._own = functools.partial(Local, self.supervisor, starters=starters, progress=progress)
        self._local = self._own()
        self._external = External(postgres=postgres, kafka=kafka)
        self._mark = secrets.token_hex(3)  # other runs may use the same servers
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.output.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.output / ".lock")
        try:
            self._stack.enter_context(lock.acquire(timeout=0))
        except Timeout as error:
            msg = f"another run keeps its logs in {self.output}: name another directory (--onecharge-output)"
            raise ChaosError(msg) from error
        for kept in ("logs", "lanes", "reports"):
            shutil.rmtree(self.output / kept, ignore_errors=True)
        self._stack.enter_context(self.supervisor)
        self._stack.callback(self._docker.close)
        self._stack.callback(self._local.close)
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    @property
    def services(self) -> Local:
        """The servers of our own."""
        return self._local

    def lanes(self, make: Make, count: int | None = None) -> Lanes:
        """Systems of one kind side by side; see `chaos.lanes`.

        Args:
            make: makes one of them, a context manager.
            count: how many; by default as many as the run was told.
        """
        return Lanes(self, make, self.count if count is None else count)

    @contextlib.contextmanager
    def lane(
        self,
        *,
        schema: str | Path | None = None,
        topics: Mapping[str, int] | None = None,
        own_servers: bool = False,
        room_mb: int | None = None,
    ) -> Iterator[Lane]:
        """A fresh lane; see `chaos.lane`.

        Args:
            schema: a file of SQL to set up the lane's database with, or the SQL itself; None for no Postgres at all.
            topics: short name and number of partitions of each topic; None for no Kafka at all.
            own_servers: not those that other lanes use, nor any that you run; so that schedules may break them
                (`chaos.outages`). They take two seconds to start, and end with the lane.
            room_mb: the data of each of the lane's own servers is in a file system of so many megabytes, so that
                schedules may fill it up. That takes root; 200 is enough for a small system.
        """
        if room_mb is not None and not (own_servers and self._kind == "local"):
            raise ChaosError("room_mb is for a lane's own servers that are plain processes: own_servers=True")
        name = f"lane_{self._mark}_{next(self._numbers)}"
        files = self.output / "lanes" / name
        files.mkdir(parents=True)
        with contextlib.ExitStack() as stack:
            wanted = {"postgres": schema is not None, "kafka": topics is not None}
            postgres, kafka = self._servers(stack, **wanted, own=own_servers, room_mb=room_mb)
            if postgres is not None:
                if not own_servers:
                    stack.callback(postgres.drop_database, name)
                postgres.create_database(name, _sql(schema, self.directory))
            lane = Lane(
                name,
                self.supervisor,
                files=files,
                directory=self.directory,
                postgres=postgres,
                kafka=kafka,
                topics=topics or {},
                toxiproxy=self._local.another_toxiproxy,
                docker=self._docker,
                own_servers=own_servers,
            )
            lane.on_verdict, lane.live, lane.shard = self.on_verdict, self.live, self.shard
            if kafka is not None and topics:
                if not own_servers:
                    stack.callback(kafka.delete_topics, lane.topics.values())
                kafka.create_topics({lane.topics[short]: count for short, count in topics.items()})
            stack.callback(lane.close)
            yield lane

    def _servers(
        self, stack: contextlib.ExitStack, *, postgres: bool, kafka: bool, own: bool, room_mb: int | None
    ) -> tuple[Postgres | None, Kafka | None]:
        """Those that are wanted; `stack` ends those of a lane's own."""
        local, external = self._local, self._external
        if own:
            local = self._own() if room_mb is None else self._own(starters=in_rooms(room_mb))
            external = External()
            stack.callback(local.end)
        ours = ["postgres"] if postgres and not external.postgres else []
        ours += ["kafka"] if kafka and not external.kafka else []
        local.start(*ours)
        found = external.postgres or local.postgres if postgres else None
        return found, external.kafka or local.kafka if kafka else None


def _sql(schema: str | Path | None, directory: Path) -> str:
    is_file = isinstance(schema, Path) or (schema is not None and schema.endswith(".sql"))
    return (directory / str(schema)).read_text(encoding="utf-8") if is_file else str(schema or "")
