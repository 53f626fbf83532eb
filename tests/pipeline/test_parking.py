"""Parking: an order waits behind its first event, nobody waits for who tries that, and there is a limit."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import UUID, uuid4

import psycopg
import pytest

from pipeline.quarantine.letters import Letter
from pipeline.quarantine.parking import Full, Parked, Parking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane

GROUP = "copy1.inventory"
HEADERS = [("event_id", b"1"), ("odd", b"\x00\xff"), ("none", None), ("event_id", b"2")]


@pytest.fixture
def parking(db: psycopg.Connection) -> Parking:
    """A group's parking, empty, with room for three events."""
    db.execute("truncate parked_orders, parked_events")
    return Parking(GROUP, 3)


@pytest.fixture
def other(lane: Lane) -> Iterator[psycopg.Connection]:
    """Somebody else's connection."""
    with psycopg.connect(lane.postgres, autocommit=True) as connection:
        yield connection


def event(order_id: str, value: bytes | None = b"{}") -> Parked:
    """A new event of an order."""
    return Parked(order_id, uuid4(), Letter("orders", 1, 2, 1_700_000_000_000, order_id.encode(), value, HEADERS))


def park(parking: Parking, connection: psycopg.Connection, first: Parked, pause_s: float = 0) -> None:
    """Park an order with its first event."""
    parking.park(connection, first, attempts=4, pause_s=pause_s, why="ValueError()")


@pytest.mark.parametrize("value", [b'{"a": 1}', b"\x00\xff", b"", None])
def test_what_is_parked_comes_out_as_it_was(db: psycopg.Connection, parking: Parking, value: bytes | None) -> None:
    """Key, value and headers are those of the message, byte for byte, and so is its place."""
    first = event("o-1", value)
    park(parking, db, first)
    assert parking.head(db, "o-1") == first


def test_an_order_comes_out_in_its_order(db: psycopg.Connection, parking: Parking) -> None:
    """Its first event is tried until it is done, then the next; an order is free when nothing is left."""
    events = [event("o-1") for _ in range(3)]
    park(parking, db, events[0])
    parking.add(db, events[1:])
    seen: list[UUID] = []
    while head := parking.head(db, "o-1"):
        due = parking.due(db)
        assert due is not None
        assert due.attempts == (0 if seen else 4)
        seen.append(head.event_id)
        parking.free(db, "o-1")  # is none yet
        parking.done(db, head)
    assert seen == [one.event_id for one in events]
    assert parking.waiting(db, ["o-1", "o-2"]) == {"o-1"}
    parking.free(db, "o-1")
    assert parking.waiting(db, ["o-1", "o-2"]) == set()


def test_what_comes_again_changes_nothing(db: psycopg.Connection, parking: Parking) -> None:
    """An event is parked once, and its order's attempts go on being counted."""
    first, second = event("o-1"), event("o-1")
    park(parking, db, first)
    parking.add(db, [second])
    due = parking.due(db)
    assert due is not None
    parking.again(db, due, pause_s=0, why="again")
    park(parking, db, first)
    parking.add(db, [second])
    assert [due.attempts for due in [parking.due(db)] if due] == [5]
    assert db.execute("select count(*) from parked_events").fetchone() == (2,)


def test_groups_know_nothing_of_each_other(db: psycopg.Connection, parking: Parking) -> None:
    """An order that waits in one group flows in the others."""
    other = Parking("copy1.notification", 3)
    first = event("o-1")
    park(parking, db, first)
    assert other.waiting(db, ["o-1"]) == set()
    assert other.due(db) is None
    park(other, db, first)
    other.done(db, first)
    assert parking.head(db, "o-1") == first


def test_it_is_tried_when_it_is_due(db: psycopg.Connection, parking: Parking) -> None:
    """Not before its time, by one at a time, and not at all when it was given up, until it has come back."""
    park(parking, db, event("o-1"), pause_s=60)
    assert parking.due(db) is None
    park(parking, db, event("o-2"))
    due = parking.due(db)
    assert due is not None
    assert due.order_id == "o-2"
    parking.again(db, due, pause_s=None, why="given up")
    assert parking.due(db) is None
    assert parking.waiting(db, ["o-2"]) == {"o-2"}
    parking.back(db, ["o-1", "o-2"])
    assert [(due.order_id, due.attempts) for due in [parking.due(db)] if due] == [("o-2", 0)]


def test_nobody_waits_for_who_tries(db: psycopg.Connection, parking: Parking, other: psycopg.Connection) -> None:
    """While one tries an order's first event, another adds to it, and a third finds other orders to try."""
    other.execute("set lock_timeout = '1s'")
    park(parking, db, event("o-1"))
    park(parking, db, event("o-2"))
    with db.transaction():
        mine = parking.due(db)
        with other.transaction():
            theirs = parking.due(other)
            assert mine is not None
            assert theirs is not None
            assert {mine.order_id, theirs.order_id} == {"o-1", "o-2"}
            assert parking.waiting(other, [mine.order_id]) == {mine.order_id}
            parking.add(other, [event(mine.order_id)])


def test_who_adds_keeps_an_order_parked(db: psycopg.Connection, parking: Parking, other: psycopg.Connection) -> None:
    """An order is not freed while somebody is about to add to it, nor when that has been done."""
    park(parking, db, first := event("o-1"))
    with other.transaction():
        assert parking.waiting(other, ["o-1"]) == {"o-1"}
        parking.done(db, first)
        parking.free(db, "o-1")
        parking.add(other, [second := event("o-1")])
    parking.free(db, "o-1")
    assert parking.head(db, "o-1") == second


def test_who_comes_too_late_finds_it_free(db: psycopg.Connection, parking: Parking, lane: Lane) -> None:
    """Who asks while an order is being freed waits for the end of that, and handles the event itself."""
    park(parking, db, first := event("o-1"))
    parking.done(db, first)
    found: list[set[str]] = []

    def ask() -> None:
        with psycopg.connect(lane.postgres) as connection:
            found.append(parking.waiting(connection, ["o-1"]))

    asking = threading.Thread(target=ask)
    with db.transaction():
        parking.free(db, "o-1")
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
    asking.join()
    assert found == [set()]


def test_it_has_a_limit(db: psycopg.Connection, parking: Parking) -> None:
    """When there is no room nothing of a transaction is parked, and one that has none says how much there is."""
    park(parking, db, event("o-1"))
    parking.add(db, [event("o-1"), event("o-1")])
    with pytest.raises(Full, match=r"Parking of group 'copy1\.inventory': it is full with 3 events"), db.transaction():
        parking.add(db, [event("o-1")])
    with pytest.raises(Full), db.transaction():
        park(parking, db, event("o-2"))
    assert parking.waiting(db, ["o-1", "o-2"]) == {"o-1"}
    assert db.execute("select count(*) from parked_events").fetchone() == (3,)
