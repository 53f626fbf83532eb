"""A slot that nobody empties: the alarm comes in time, the database goes on, and what the slot has lost is not lost.

On a Postgres of its own, which keeps 64 MB of log for a slot and gives it up then. Orders are placed all the time.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from chaos.waiting import Deadline, wait_until
from pipeline.publish.cdc import CdcRelay
from pipeline.publish.slot import make
from pipeline.publish.watch import State, state
from pipeline.runtime import Unavailable
from pipeline.settings import CdcSettings
from tests.fix_pipeline import SCHEMA
from tests.fix_slot import dropped
from tests.lines import Series, page
from tests.pipeline.slots import carry_until, committed
from tests.pipeline.workers import place, starting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chaos import Session
    from tests.pipeline.workers import Worker

pytestmark = pytest.mark.drills

PATIENCE_S = 60.0
FILLER = "select pg_logical_emit_message(false, 'filler', repeat('x', 6 * 1024 * 1024))"
MB = 1024**2


@pytest.fixture
def settings(onecharge: Session) -> Iterator[CdcSettings]:
    """For a relay on a Postgres of its own; with its slot."""
    with onecharge.lane(schema=SCHEMA, topics={"orders": 1}, own_servers=True) as lane:
        lane.execute("alter system set max_slot_wal_keep_size = '64MB'")
        lane.execute("select pg_reload_conf()")
        settings = CdcSettings(
            database_url=lane.postgres,
            kafka_bootstrap_servers=lane.kafka,
            namespace=lane.name,
            slot=lane.name,
        )
        make(settings)
        try:
            yield settings
        finally:
            wait_until("the slot to be free", partial(dropped, lane, settings.slot), Deadline(PATIENCE_S))


class Customers(threading.Thread):
    """Place orders until they are asked to stop."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url, self._enough = url, threading.Event()
        self.placed: list[str] = []

    def run(self) -> None:
        """Place one every few milliseconds."""
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._enough.wait(0.005):
                self.placed.append(place(connection, 1))

    def placed_more(self) -> None:
        """Wait until some more orders are there."""
        before = len(self.placed)
        wait_until("more orders", lambda: len(self.placed) > before + 10, Deadline(PATIENCE_S))

    def stop(self) -> None:
        """Return when there will be no more."""
        self._enough.set()
        self.join(PATIENCE_S)


def stall(settings: CdcSettings, watch: Worker) -> list[tuple[float, State]]:
    """Write log until the slot is lost, no faster than the watch looks; what the slot was like meanwhile."""
    seen: list[tuple[float, State]] = []
    began = time.monotonic()

    def looked(times: int) -> bool:
        return watch.log.count("retained_bytes") > times

    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        while not seen or not seen[-1][1].lost:
            connection.execute(FILLER)
            connection.execute("checkpoint")
            wait_until("the watch to look", lambda: looked(len(seen)), Deadline(PATIENCE_S), logs=[watch.process.log])
            found = state(connection, settings.slot)
            assert found is not None
            seen.append((time.monotonic() - began, found))
            assert len(seen) < 60, "the slot is kept for ever"
    return seen


def missing(settings: CdcSettings, customers: Customers) -> set[str]:
    """The orders that were placed and are not on the topic, when the relay has nothing left to bring."""
    customers.stop()
    there = {json.loads(value)["order_id"] for value in committed(settings, "orders")}
    return set(customers.placed) - there


def alarms(log: str) -> list[str]:
    """What the watch has said, louder than that all is well."""
    return [line for line in log.splitlines() if " INFO " not in line]


@pytest.mark.parametrize("relay", ["dead", "never_confirms"])
def test_the_alarm_comes_in_time(settings: CdcSettings, onecharge: Session, tmp_path: Path, relay: str) -> None:
    """Before the slot is lost there is an alarm that says who is to blame; then orders go on, and none is lost."""
    env = {
        "DATABASE_URL": settings.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "NAMESPACE": settings.namespace,
        "SLOT": settings.slot,
    }
    customers = Customers(settings.database_url)
    customers.start()
    with starting(onecharge.supervisor, tmp_path) as start:
        if relay != "dead":
            start(relay, **env)
        watch = start("watch", **env)
        seen = stall(settings, watch)
        watch.said("CRITICAL The slot is lost")
        warned = [line for line in alarms(watch.log) if "will be lost" in line]
    assert warned, watch.log
    assert all(("confirms nothing" in line) == (relay != "dead") for line in warned)
    assert seen[[found.alarm() is not None for _, found in seen].index(True)][1].safe_bytes
    draw(onecharge.output / "reports" / "lost-slot" / f"{relay}.html", relay, seen)

    customers.placed_more()  # the database goes on
    with closing(CdcRelay(settings)) as late, pytest.raises(Unavailable, match="run python -m pipeline slot"):
        late.ready()
    assert make(settings) > 0
    assert not missing_after(settings, customers)


def missing_after(settings: CdcSettings, customers: Customers) -> set[str]:
    """What is missing when a relay has brought everything that the new slot has."""
    customers.placed_more()
    customers.stop()
    with psycopg.connect(settings.database_url, autocommit=True) as db, closing(CdcRelay(settings)) as relay:
        [[end]] = db.execute("select pg_current_wal_insert_lsn()::text").fetchall()
        query = "select from pg_replication_slots where slot_name = %s and confirmed_flush_lsn >= %s"
        carry_until(relay, lambda: db.execute(query, [settings.slot, end]).fetchall())
    return missing(settings, customers)


def slot_alone(settings: CdcSettings, _customers: Customers) -> None:
    """BUG: what happened before the slot was there is nobody's."""
    with psycopg.connect(settings.database_url, autocommit=True) as db:
        db.execute("select pg_drop_replication_slot(%s)", [settings.slot])
        db.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [settings.slot])


def backfill_first(settings: CdcSettings, customers: Customers) -> None:
    """BUG: what happens between the backfill and the slot is nobody's."""
    make(settings)
    with psycopg.connect(settings.database_url, autocommit=True) as db:
        db.execute("select pg_drop_replication_slot(%s)", [settings.slot])
        customers.placed_more()
        db.execute("select pg_create_logical_replication_slot(%s, 'pgoutput')", [settings.slot])


@pytest.mark.parametrize("recover", [slot_alone, backfill_first])
def test_another_order_of_steps_loses_orders(
    settings: CdcSettings, recover: Callable[[CdcSettings, Customers], None]
) -> None:
    """A slot without a backfill, or behind it, loses what was placed meanwhile; that would have been seen."""
    with psycopg.connect(settings.database_url, autocommit=True) as db:
        for _ in range(40):
            db.execute(FILLER)
            db.execute("checkpoint")
            found = state(db, settings.slot)
            if found is not None and found.lost:
                break
    customers = Customers(settings.database_url)
    customers.start()
    customers.placed_more()
    recover(settings, customers)
    assert missing_after(settings, customers)


def draw(file: Path, relay: str, seen: list[tuple[float, State]]) -> None:
    """The gauges over time, and when the alarm came."""
    retained = [(at, (found.retained_bytes or 0) / MB) for at, found in seen if not found.lost]
    safe = [(at, (found.safe_bytes or 0) / MB) for at, found in seen if not found.lost]
    first = next(at for at, found in seen if found.alarm() is not None)
    lost = next(at for at, found in seen if found.lost)
    title = "A slot whose relay is " + ("dead" if relay == "dead" else "there and confirms nothing")
    series = [Series("kept for the slot, MB", retained), Series("left until it is lost, MB", safe)]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page(title, series, {"first alarm": first, "lost": lost}), encoding="utf-8")
