"""Reading a logical slot: what is confirmed is over, what is not comes again, and what is in the way is said."""

from __future__ import annotations

import time
from struct import pack
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from pipeline.publish.pgoutput import Commit, Decoder, Insert, Undecodable
from pipeline.publish.replication import Data, Keepalive, Stream, decode, explained, status
from pipeline.runtime import Unavailable
from tests.fix_slot import dropped
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from chaos import Lane

LSN = st.integers(0, 2**64 - 1)


@given(LSN, LSN, st.integers(-(2**63), 2**63 - 1), st.binary(min_size=1, max_size=50), st.booleans())
def test_frames(start: int, end: int, clock: int, message: bytes, wants: bool) -> None:  # noqa: FBT001
    """Both kinds of frames are read as the documentation lays them out."""
    assert decode(b"w" + pack("!QQq", start, end, clock) + message) == Data(start, message)
    assert decode(b"k" + pack("!QqB", end, clock, wants)) == Keepalive(end, wants)


@given(st.binary(max_size=40) | st.binary(max_size=30).map(lambda rest: b"w" + rest))
def test_any_frame(frame: bytes) -> None:
    """Whatever comes, it is a frame or it is `Undecodable`."""
    try:
        decode(frame)
    except Undecodable as error:
        assert error.data == frame  # noqa: PT017 - it need not be raised


def test_a_report() -> None:
    """What was received is told apart from what is done with; time counts from the year 2000; an answer is wanted."""
    assert status(7, 5, at=946_684_801.5) == pack("!cQQQqB", b"r", 7, 5, 5, 1_500_000, 1)


@pytest.fixture
def slot(db: psycopg.Connection, lane: Lane) -> Iterator[str]:
    """A slot, and a publication of the same name for the table `thing`."""
    name = f"slot_{uuid4().hex}"
    db.execute(f"create table thing (id int); create publication {name} for table thing with (publish = 'insert')")
    db.execute(f"select pg_create_logical_replication_slot('{name}', 'pgoutput')")
    yield name
    until(lambda: dropped(lane, name))
    db.execute(f"drop publication {name}; drop table thing")


def insert(db: psycopg.Connection, *ids: int) -> None:
    """Insert rows, each in a transaction of its own."""
    for one in ids:
        db.execute("insert into thing values (%s)", [one])


def received(stream: Stream, last: int) -> dict[int, Commit]:
    """The rows that come, up to this one, and the commits of their transactions."""
    decoder, rows, done = Decoder(), [], {}

    def over() -> Any:
        frame = stream.receive(0.1)
        if isinstance(frame, Data):
            change = decoder.decode(frame.message)
            if isinstance(change, Insert):
                rows.append(int(change.values[0] or b""))
            elif isinstance(change, Commit):
                done.update(dict.fromkeys(rows, change))
                rows.clear()
        return last in done

    until(over)
    return done


def test_what_is_confirmed_is_over(lane: Lane, db: psycopg.Connection, slot: str) -> None:
    """A new reader is sent what was committed behind the last confirmed place, in the order of commits."""
    insert(db, 1, 2, 3)
    stream = Stream(lane.postgres, slot, slot)
    commits = received(stream, 3)
    assert list(commits) == [1, 2, 3]
    stream.confirm(commits[2].end_lsn)
    stream.confirm(commits[1].end_lsn)  # there is no way back
    stream.report()
    confirmed = "select confirmed_flush_lsn - '0/0' from pg_replication_slots where slot_name = %s"
    until(lambda: db.execute(confirmed, [slot]).fetchone() == (commits[2].end_lsn,))
    stream.close()
    insert(db, 4)
    again = reading(lane, slot)
    assert list(received(again, 4)) == [3, 4]
    again.close()


def test_the_beginning_of_a_commit_is_too_early(lane: Lane, db: psycopg.Connection, slot: str) -> None:
    """Whoever confirms where a commit begins, and not where it ends, is sent that transaction again."""
    insert(db, 1, 2)
    stream = Stream(lane.postgres, slot, slot)
    stream.confirm(received(stream, 2)[2].lsn)
    stream.report()
    stream.close()
    again = reading(lane, slot)
    assert list(received(again, 2)) == [2]
    again.close()


def reading(lane: Lane, slot: str) -> Stream:
    """A new reader, once the one before is gone for the server too."""
    streams: list[Stream] = []

    def free() -> list[Stream]:
        try:
            streams.append(Stream(lane.postgres, slot, slot))
        except Unavailable:
            return []
        return streams

    return until(free)[0]  # type: ignore[no-any-return]


def test_nothing_to_read(lane: Lane, slot: str) -> None:
    """No call waits longer than it was told to."""
    stream = Stream(lane.postgres, slot, slot)
    until(lambda: stream.receive(0) is None)
    began = time.monotonic()
    stream.receive(0.05)
    assert time.monotonic() - began < 5
    stream.close()


def test_one_reader_at_a_time(lane: Lane, slot: str) -> None:
    """A second reader is told that there is one."""
    stream = Stream(lane.postgres, slot, slot)
    with pytest.raises(Unavailable, match=f"Slot '{slot}' of Postgres at .*: another relay reads it \\(.*PID [0-9]+"):
        Stream(lane.postgres, slot, slot)
    stream.close()


def test_what_is_missing(lane: Lane, slot: str) -> None:
    """Who has no slot, or no publication, is told what to run; the slot stays free."""
    with pytest.raises(Unavailable, match="run python -m pipeline slot, with SLOT=nowhere"):
        Stream(lane.postgres, "nowhere", slot)
    with pytest.raises(Unavailable, match="run create publication nothing for table outbox with"):
        Stream(lane.postgres, slot, "nothing")
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1/"):
        Stream("postgresql://127.0.0.1:1/nowhere", slot, slot)
    Stream(lane.postgres, slot, slot).close()


@pytest.mark.parametrize(
    ("why", "run"),
    [
        (errors.ObjectNotInPrerequisiteState('logical decoding requires "wal_level" >= "logical"'), "alter system set"),
        (errors.InsufficientPrivilege("permission denied to use replication slots"), "run alter role … replication"),
    ],
)
def test_what_has_to_be_set_up(why: psycopg.Error, run: str) -> None:
    """Who has not set up Postgres for it is told how."""
    assert run in explained(why, "outbox")


def test_the_server_hangs_up(lane: Lane, db: psycopg.Connection, slot: str) -> None:
    """A stream that the server has ended says so, and why."""
    stream = Stream(lane.postgres, slot, slot)
    db.execute("select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = %s", [slot])

    def over() -> str:
        try:
            stream.receive(0.1)
        except Unavailable as error:
            return str(error)
        return ""

    assert "terminating connection due to administrator command" in until(over)
    stream.close()
