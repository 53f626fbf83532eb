"""Making a slot, also in the place of one that is lost, and what is said about it before."""

from __future__ import annotations

import json
import logging
import re
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from chaos.waiting import Deadline, wait_until
from pipeline.publish.slot import SlotIsWell, make
from pipeline.publish.watch import State, state, tell
from pipeline.runtime import Unavailable
from pipeline.settings import CdcSettings
from tests.fix_slot import dropped
from tests.pipeline.slots import committed
from tests.pipeline.workers import PATIENCE_S, place, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from chaos import Lane

MB = 1024**2


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a slot that is not there yet."""
    db.execute("truncate relay_progress")
    name = f"slot_{uuid4().hex}"
    yield CdcSettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace, slot=name)
    until(lambda: dropped(lane, name))
    db.execute("truncate relay_progress")


def until_slots_are(db: psycopg.Connection, *names: str) -> None:
    """Wait until there are these slots; a temporary one ends with its connection."""
    wait_until(
        f"the slots to be {names}", lambda: slots(db), Deadline(PATIENCE_S), accept=lambda found: found == [*names]
    )


def slots(db: psycopg.Connection) -> list[str]:
    """The names of all that there are."""
    return [name for (name,) in db.execute("select slot_name from pg_replication_slots")]


def test_what_the_slot_will_not_bring_is_published(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Rows that are there go to the topic in sequence, except those that a polling relay has marked."""
    order, marked = place(db, 1, 2, 3), place(db, 1)
    db.execute("update outbox set published_at = now() where order_id = %s", [marked])
    assert make(settings) == 3
    events = [json.loads(value) for value in committed(settings, "orders")]
    assert [(event["order_id"], event["seq"]) for event in events] == [(order, 1), (order, 2), (order, 3)]
    until_slots_are(db, settings.slot)


def test_what_is_known_to_be_published_is_not_sent_again(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Of a slot that has gone, only what came behind its last heartbeat is sent."""
    place(db, 1)
    make(settings)
    db.execute("select pg_drop_replication_slot(%s)", [settings.slot])
    place(db, 1)
    assert make(settings) == 1
    assert len(committed(settings, "orders")) == 2


def test_a_slot_that_is_well_is_left_alone(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Nobody's place in the log is thrown away."""
    make(settings)
    place_in_log = "select confirmed_flush_lsn from pg_replication_slots where slot_name = %s"
    before = db.execute(place_in_log, [settings.slot]).fetchall()
    with pytest.raises(SlotIsWell, match=r"is there and well \(reserved\)"):
        make(settings)
    assert db.execute(place_in_log, [settings.slot]).fetchall() == before


def test_without_kafka_nothing_has_changed(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Where the rows cannot be published there is no new slot, and nothing is said to be published."""
    place(db, 1)
    with pytest.raises(Unavailable, match=r"Kafka at 127\.0\.0\.1:1: "):
        make(settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"}))
    until_slots_are(db)
    assert db.execute("select from relay_progress").fetchall() == []


def test_what_kafka_refuses_is_not_passed_over(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Where one row is not taken there is no new slot, and nothing of its order is sent behind it."""
    place(db, 1, 2)
    db.execute("update outbox set payload = to_json(repeat('x', 2000000)) where seq = 1")
    with pytest.raises(Unavailable, match="MSG_SIZE_TOO_LARGE"):
        make(settings)
    assert committed(settings, "orders") == []
    until_slots_are(db)


FINE = State(
    active=True,
    wal_status="reserved",
    invalidation_reason=None,
    retained_bytes=MB,
    safe_bytes=63 * MB,
    limit_bytes=64 * MB,
)


@pytest.mark.parametrize(
    ("found", "level", "said"),
    [
        (FINE, None, ""),
        (
            FINE._replace(safe_bytes=31 * MB),
            logging.WARNING,
            "32,505,856 bytes of log; its relay",
        ),
        (FINE._replace(safe_bytes=31 * MB, active=False), logging.WARNING, "nobody reads it"),
        (FINE._replace(safe_bytes=15 * MB), logging.ERROR, "will be lost in 15,728,640 bytes"),
        (FINE._replace(safe_bytes=40 * MB, wal_status="unreserved"), logging.ERROR, "will be lost in"),
        (FINE._replace(safe_bytes=0, wal_status="unreserved"), logging.ERROR, "will be lost in 0 bytes"),
        (FINE._replace(safe_bytes=None, limit_bytes=None), logging.WARNING, "set max_slot_wal_keep_size"),
        (
            FINE._replace(wal_status="lost", invalidation_reason="wal_removed"),
            logging.CRITICAL,
            r"lost \(wal_removed\); events wait in the outbox: run python -m pipeline slot",
        ),
    ],
)
def test_alarms(found: State, level: int | None, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """The less is left, the louder; every alarm says what is the matter, or what to run."""
    tell("outbox", found)
    alarms = [record for record in caplog.records if record.levelno > logging.INFO]
    assert [record.levelno for record in alarms] == ([level] if level else [])
    assert all(re.search(said, record.message) for record in alarms)


def test_no_slot_is_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    """So is a slot that is not there."""
    tell("outbox", None)
    assert "There is no slot 'outbox': run python -m pipeline slot." in caplog.text


def test_the_state_is_what_postgres_says(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Sizes are bytes, and a server without a limit has none."""
    assert state(db, settings.slot) is None
    make(settings)
    found = state(db, settings.slot)
    assert found is not None
    assert (found.wal_status, found.limit_bytes, found.safe_bytes) == ("reserved", None, None)
    assert found.retained_bytes is not None
    assert 0 <= found.retained_bytes < 16 * MB
