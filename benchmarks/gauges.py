"""What a relay uses of Postgres: transactions, log, room, dead rows, CPU of all the server's processes and its own.

Everything is taken from where Postgres and Linux always have it. `benchmarks.polling_or_cdc` says what for.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
import psycopg

from benchmarks.relay import cpu_s
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from chaos import Lane, Session

PATIENCE_S = 30.0
TABLES = 100

SETTLED = """
    select n_tup_ins >= %s and n_tup_upd >= %s and not exists (
        select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn < %s::pg_lsn
    ) from pg_stat_user_tables where relname = 'outbox'
"""
COUNTERS = """
    select xact_commit, (pg_current_wal_insert_lsn() - '0/0')::float8, pg_total_relation_size('outbox')
    from pg_stat_database where datname = current_database()
"""
DEAD = "select n_dead_tup from pg_stat_all_tables where relid = %s::regclass"
HELD = """
    select coalesce(sum(pg_current_wal_insert_lsn() - restart_lsn), 0)::float8
    from pg_replication_slots where database = current_database()
"""
BEHIND = "select count(*) from pg_replication_slots where slot_name = %s and restart_lsn < %s::pg_lsn"


class Used(NamedTuple):
    """What was used so far, or between two moments."""

    at: float
    commits: float
    wal_bytes: float
    outbox_bytes: float
    server_cpu_s: float
    relay_cpu_s: float

    def since(self, before: Used) -> Used:
        """The difference."""
        return Used(*(now - then for now, then in zip(self, before, strict=True)))


class Gauges:
    """The counters of a lane, in which this is the only one to ask besides orders and a relay.

    What this asks Postgres itself is not counted as a commit. Autovacuum leaves the outbox alone from now on: it would
    come in some rounds and not in others.

    Args:
        session: has the server.
        lane: has the outbox.
        relay: the process that publishes it, if there is one.
        marks: whether that notes in the outbox what it has published.
        slot: the slot that it reads; there is none of that name if it reads none.
    """

    def __init__(self, session: Session, lane: Lane, relay: psutil.Process | None, *, marks: bool, slot: str) -> None:
        server = session.services.postgres.process
        if server is None:
            sys.exit("the CPU of a Postgres of our own is measured, and this one is somebody else's")
        self._server, self._relay = psutil.Process(server.pid), relay
        self._marks, self._slot = marks, slot
        self._connection = psycopg.connect(lane.postgres, autocommit=True)
        self._asked = 0
        self.ask("alter table outbox set (autovacuum_enabled = off)")

    def ask(self, statement: str, parameters: list[Any] | None = None) -> Any:
        """The value that a statement returns, if any; each is a transaction."""
        self._asked += 1
        cursor = self._connection.execute(statement, parameters)
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None

    def read(self) -> Used:
        """All of them."""
        self.flush()
        mine = self._asked
        row = self._connection.execute(COUNTERS).fetchone()
        assert row is not None  # noqa: S101 - for the type checker; the database we are in
        self._asked += 1
        relay = cpu_s(self._relay) if self._relay else 0.0
        return Used(time.monotonic(), row[0] - mine, row[1], row[2], self._server_cpu_s(), relay)

    def flush(self) -> None:
        """Have our own share of the statistics written down; others are a second late."""
        self.ask("select pg_stat_force_next_flush()")

    def settle(self, orders: int) -> None:
        """Return when so many orders, and what the relay has noted of them in Postgres, are in the statistics."""
        asked = [orders, orders if self._marks else 0, self._slot, self.ask("select pg_current_wal_insert_lsn()")]
        what = f"{orders} orders to be published and counted"
        wait_until(what, lambda: self.ask(SETTLED, asked), Deadline(PATIENCE_S), every=0.1)

    def left_in_catalog(self) -> float:
        """Dead rows of pg_attribute that VACUUM leaves when temporary tables have come and gone."""
        for _ in range(TABLES):
            self.ask("create temporary table passing (a integer, b integer, c integer) on commit drop")
        end = self.ask("select pg_current_wal_insert_lsn()")

        def passed() -> bool:
            self.ask("select pg_log_standby_snapshot()")  # a slot moves at these; there is one each 15 s anyway
            return not self.ask(BEHIND, [self._slot, end])

        wait_until("the slot to pass by the tables", passed, Deadline(PATIENCE_S), every=0.1)
        self.flush()
        self.ask("vacuum pg_attribute")
        return self.dead("pg_attribute")

    def dead(self, table: str) -> float:
        """Rows of a table that nobody sees any more, as far as Postgres has counted."""
        return float(self.ask(DEAD, [table]))

    def held_bytes(self) -> float:
        """Log that the slots of this database keep from being removed."""
        return float(self.ask(HELD))

    def close(self) -> None:
        """Leave."""
        self._connection.close()

    def _server_cpu_s(self) -> float:
        """Of all its processes, those that have ended included."""
        times = self._server.cpu_times()
        total = times.user + times.system + times.children_user + times.children_system
        for child in self._server.children():
            with contextlib.suppress(psutil.NoSuchProcess):
                total += cpu_s(child)
        return float(total)
