"""How arrivals are named: by count, by key, by kin, by what a commit of offsets covers; and which faults are due."""

from __future__ import annotations

import uuid

import pytest

from chaos.armed import armed_fault
from chaos.schedule import Schedule
from chaos.wire.points import Points
from chaos.wire.steps import Effect

ORDER, OTHER = "7c9e6679-f742-4e0b-b2b0-d9f4a7f2a9c1", "0b0ab0d1-5f5c-4a44-8a3b-7f3f7c6ef9aa"
TENANT = "11111111-2222-4333-8444-555555555555"


def effect(site: str, *contents: bytes | str, evidence: tuple[str, ...] = ()) -> Effect:
    """An effect with these contents."""
    pieces = tuple(piece if isinstance(piece, bytes) else piece.encode() for piece in contents)
    return Effect(1, site, pieces, b"", evidence=evidence)


def arrive(points: Points, role: str, site: str, *contents: bytes | str, evidence: tuple[str, ...] = ()) -> list[str]:
    """The names by key of an arrival."""
    return list(points.arrived(role, effect(site, *contents, evidence=evidence))[0][1:])


@pytest.fixture
def points() -> Points:
    """Points that know two keys."""
    made = Points()
    made.arm(())
    made.name("client-key-a", "key-1")
    made.name("client-key-b", "key-2")
    return made


def test_counted_by_role_and_key(points: Points) -> None:
    """An arrival is counted for its role and site, and apart for each key that it holds."""
    assert points.arrived("w", effect("http.post", "client-key-a"))[0] == ("w~0/http.post#1", "w~0/http.post[key-1]#1")
    assert points.arrived("w", effect("http.post", "client-key-b", "client-key-a"))[0] == (
        "w~0/http.post#2",
        "w~0/http.post[key-1]#2",
        "w~0/http.post[key-2]#1",
    )
    assert points.arrived("v", effect("http.post"))[0] == ("v~0/http.post#1",)


def test_counted_anew_when_one_of_a_role_is_replaced(points: Points) -> None:
    """A role whose process was killed is in its next generation, all replicas of it, and counted from the beginning."""
    arrive(points, "w", "http.post", "client-key-a")
    points.enlist("w", 1)
    assert arrive(points, "w", "http.post", "client-key-a") == ["w~1/http.post[key-1]#1"]
    assert arrive(points, "v", "http.post", "client-key-a") == ["v~0/http.post[key-1]#1"]
    points.arm(())
    assert points.arrived("w", effect("http.post"))[0] == ("w~0/http.post#1",)


def test_two_keys_of_one_alias(points: Points) -> None:
    """Two keys may have one alias; a frame with both has its name once."""
    points.name(ORDER, "key-1")
    assert arrive(points, "w", "http.post", "client-key-a", ORDER) == ["w~0/http.post[key-1]#1"]


@pytest.mark.parametrize("spelt", [ORDER.encode(), uuid.UUID(ORDER).bytes, uuid.UUID(ORDER).hex.encode()])
def test_kin(points: Points, spelt: bytes) -> None:
    """An id that first stands beside one key alone is about that key from there on, however it is spelt."""
    assert arrive(points, "api", "postgres.commit", "client-key-a", ORDER) == ["api~0/postgres.commit[key-1]#1"]
    assert arrive(points, "relay", "kafka.produce", b"..." + spelt + b"...") == ["relay~0/kafka.produce[key-1]#1"]


def test_kin_by_a_binary_parameter(points: Points) -> None:
    """The sixteen bytes of an id are one where they are a whole parameter; sixteen letters are not."""
    arrive(points, "api", "postgres.commit", "client-key-a", uuid.UUID(ORDER).bytes, b"sixteen letters.")
    assert arrive(points, "relay", "kafka.produce", ORDER) == ["relay~0/kafka.produce[key-1]#1"]
    assert arrive(points, "relay", "kafka.produce", "sixteen letters.") == []


def test_no_kin_of_several(points: Points) -> None:
    """An id in a frame with two keys is kin of neither."""
    arrive(points, "api", "postgres.commit", "client-key-a", "client-key-b", ORDER)
    assert arrive(points, "relay", "kafka.produce", ORDER) == []


def test_no_kin_in_a_batch(points: Points) -> None:
    """In a frame that is about two keys, one of them by an id that stands for it, nothing is kin of the other."""
    arrive(points, "api", "postgres.commit", "client-key-b", ORDER)
    arrive(points, "relay", "kafka.produce", "client-key-a", ORDER, OTHER)
    assert arrive(points, "w", "postgres.commit", OTHER) == []
    assert arrive(points, "w", "postgres.commit", ORDER) == ["w~0/postgres.commit[key-2]#1"]


def test_kin_of_kin(points: Points) -> None:
    """What stands beside an id that is kin of a key alone, in a frame or in a record of a batch, is kin of it too."""
    arrive(points, "api", "postgres.commit", "client-key-a", ORDER)
    points.given([("t/0", 1, f"{ORDER} {OTHER}".encode())])
    assert arrive(points, "w", "postgres.write", OTHER) == ["w~0/postgres.write[key-1]#1"]
    arrive(points, "w", "http.post", OTHER, TENANT)
    assert arrive(points, "w", "postgres.commit", TENANT) == ["w~0/postgres.commit[key-1]#1"]


def test_what_is_common_is_no_kin(points: Points) -> None:
    """An id that stands beside several keys in frames of one kind is forgotten, and not learnt again."""
    arrive(points, "api", "postgres.commit", "client-key-a", ORDER, TENANT)
    assert arrive(points, "api", "postgres.commit", "client-key-b", OTHER, TENANT) == ["api~0/postgres.commit[key-2]#1"]
    assert arrive(points, "relay", "kafka.produce", TENANT) == []
    points.arm(())
    points.name("client-key-a", "key-1")
    arrive(points, "api", "postgres.commit", "client-key-a", TENANT)
    assert arrive(points, "relay", "kafka.produce", TENANT) == []


def test_what_is_common_is_seen_in_a_batch_too(points: Points) -> None:
    """A worker's own token beside one key, then in a frame of the kind about others only, is that key's no longer."""
    points.name("client-key-c", "key-3")
    arrive(points, "relay", "postgres.write", "client-key-a", ORDER, TENANT)
    both = arrive(points, "relay", "postgres.write", "client-key-a", "client-key-b", TENANT)
    assert both == ["relay~0/postgres.write[key-1]#2", "relay~0/postgres.write[key-2]#1"]
    others = arrive(points, "relay", "postgres.write", "client-key-b", "client-key-c", TENANT)
    assert others == ["relay~0/postgres.write[key-2]#2", "relay~0/postgres.write[key-3]#1"]
    assert arrive(points, "relay", "postgres.write", TENANT) == []
    assert arrive(points, "relay", "postgres.write", ORDER) == ["relay~0/postgres.write[key-1]#3"]


def test_commit_of_offsets_is_about_what_it_covers(points: Points) -> None:
    """A commit of offsets is about the records behind the group's last one; a repeat is about nothing."""
    points.given([("t/0", 4, b"client-key-a"), ("t/0", 5, b"nobody's"), ("t/0", 6, b"client-key-b")])

    def commit(offset: int, group: str = "g") -> list[str]:
        return arrive(points, "w", "kafka.offset_commit", evidence=(f"offset:{group}:t/0:{offset}",))

    assert commit(5) == ["w~0/kafka.offset_commit[key-1]#1"]
    points.done(effect("kafka.offset_commit", evidence=("offset:g:t/0:5",)))
    assert commit(5) == []
    assert commit(7) == ["w~0/kafka.offset_commit[key-2]#1"]
    points.done(effect("kafka.offset_commit", evidence=("offset:g:t/0:7",)))
    assert commit(7, "another") == ["w~0/kafka.offset_commit[key-1]#2", "w~0/kafka.offset_commit[key-2]#2"]


def test_commit_of_offsets_that_was_lost(points: Points) -> None:
    """A commit that its broker has not carried out covers nothing: the next one does."""
    points.given([("t/0", 4, b"client-key-a")])
    assert arrive(points, "w", "kafka.offset_commit", evidence=("offset:g:t/0:5",)) == [
        "w~0/kafka.offset_commit[key-1]#1"
    ]
    points.enlist("w", 1)
    assert arrive(points, "w", "kafka.offset_commit", evidence=("offset:g:t/0:5",)) == [
        "w~1/kafka.offset_commit[key-1]#1"
    ]


def test_commits_of_offsets_in_flight(points: Points) -> None:
    """What was let through is being committed, and is a repeat until that is lost or refused; what is held is not."""
    points.given([("t/0", 4, b"client-key-a")])
    commit = effect("kafka.offset_commit", evidence=("offset:g:t/0:5",))
    assert points.arrived("w", commit)[0][1:] == ("w~0/kafka.offset_commit[key-1]#1",)
    assert not points.repeats(commit)
    points.sent(commit)
    assert points.repeats(commit)
    assert points.arrived("w", commit)[0][1:] == ()
    points.undone(commit)
    assert not points.repeats(commit)
    assert points.arrived("w", commit)[0][1:] == ("w~0/kafka.offset_commit[key-1]#2",)


@pytest.mark.parametrize(("end", "again"), [("commit", []), ("abort", ["w~0/kafka.offset_commit[key-1]#1"])])
def test_commit_of_offsets_in_a_transaction(points: Points, end: str, again: list[str]) -> None:
    """Offsets that a transaction commits are committed when it is, and never when it is aborted."""
    points.given([("t/0", 4, b"client-key-a")])
    commit = effect("kafka.txn_offset_commit", "g", "relay", evidence=("offset:g:t/0:5",))
    assert points.arrived("w", commit)[0][1:] == ("w~0/kafka.txn_offset_commit[key-1]#1",)
    points.done(commit)
    points.done(effect(f"kafka.{end}_transaction", "relay"))
    assert points.repeats(commit) == (end == "commit")
    assert arrive(points, "w", "kafka.offset_commit", evidence=("offset:g:t/0:5",)) == again


def test_fault_is_due_once(points: Points) -> None:
    """A fault is due at the arrival that has its point's name, and at no other."""
    points.arm([armed_fault(Schedule.parse("w/http.post[key-1]#2:crash-after").faults[0])])
    points.name("client-key-a", "key-1")
    due = [
        points.arrived("w", effect("http.post", text))[1]
        for text in ("client-key-a", "b", "client-key-a", "client-key-a")
    ]
    assert due == [[], [], [0], []]
