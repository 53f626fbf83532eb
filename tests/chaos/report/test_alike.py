"""What looks alike: which schedules stand in one group, and which do not."""

from __future__ import annotations

import pytest

from chaos.report.alike import abstract, essence, undecided, violated
from chaos.report.data import Finding, Outcome
from chaos.report.story import moments
from tests.chaos.report.histories import Play, charged_twice, double_charge

OFFSET = "payment/kafka.offset_commit"
LOST = Finding("nothing lost", "key-1-x", "key-1", "was accepted and has no effect")


def lost() -> Outcome:
    """The offset is committed, the worker dies, and the order is forgotten."""
    play = Play("payment~0/http.post[key-1]#1:crash-before")
    play.key("key-1")
    play.effect("payment.0", "kafka.offset_commit", "key-1")
    play.ask("payment.0", "http.post", "key-1")
    play.broke(play.schedule, "payment~0")
    play.start("payment~1")
    return play.outcome("violated", LOST)


def test_one_cause_at_many_places() -> None:
    """The same effect done twice is alike, whichever key it was about and wherever its worker was broken."""
    outcomes = [
        double_charge(f"key-{number}", site, action)
        for number in (1, 2, 3)
        for site, action in (("http.post", "crash-after"), ("postgres.commit", "crash-before"))
    ]

    [group] = violated([*outcomes, Outcome("x", "holds")])
    assert group.likeness == ("one effect per key: payment/http.post was done more than once",)
    assert group.outcomes == tuple(outcomes)
    assert group.broken == [
        ("payment/http.post", "crash-after in 3"),
        ("payment/postgres.commit", "crash-before in 3"),
    ]


def test_what_is_not_alike() -> None:
    """Another invariant, or another course of things, is a group of its own; the largest comes first."""
    groups = violated([lost(), double_charge("key-1"), double_charge("key-2")])

    assert [(len(group.outcomes), group.likeness[0]) for group in groups] == [
        (2, "one effect per key: payment/http.post was done more than once"),
        (
            1,
            f"nothing lost: the last effect done is {OFFSET}; payment/http.post was asked for, not done",
        ),
    ]


def test_two_findings() -> None:
    """A schedule with two kinds of findings is like others that have both."""
    play = Play()
    play.effect("w.0", "http.post", "key-1")
    play.effect("w.0", "http.post", "key-1")
    both = play.outcome("violated", charged_twice("key-1"), LOST, charged_twice("key-1"))

    [group] = violated([both])
    assert [line.partition(":")[0] for line in group.likeness] == ["nothing lost", "one effect per key"]


def test_without_a_history() -> None:
    """Where nothing is known of what happened, the group says so."""
    [group] = violated([Outcome("x", "violated", findings=(LOST,)), Outcome("y", "violated", findings=(LOST,))])
    assert group.likeness == ("nothing lost: nothing is known of what happened",)


def test_essence() -> None:
    """Without a call to an HTTP service whatever was repeated counts, and a repeated request counts twice."""
    play = Play()
    for _ in range(2):
        play.effect("relay.0", "kafka.produce", "key-1")
    play.effect("relay.0", "http.post", "key-2")
    play.broke("relay~0/http.post[key-2]#1:repeat", "relay~0", "delivered twice")
    play.effect("relay.0", "postgres.commit", "key-3", outcome="refused")
    for site in ("postgres.write", "kafka.produce") * 2:
        play.effect("relay.0", site, "key-5")
    told = moments(play.events)

    assert essence(told, "key-1") == "relay/kafka.produce was done more than once"
    assert essence(told, "key-2") == "relay/http.post was done more than once"
    assert essence(told, "key-3") == "nothing was done; relay/postgres.commit was asked for, not done"
    assert essence(told, "key-5") == "relay/kafka.produce and relay/postgres.write were done more than once"
    assert essence(told, "key-4") == "no effect about the key was seen"


@pytest.mark.parametrize(
    ("reason", "left"),
    [
        ("waited 0.4 s; last seen: jobs has 12 rows\n--- a.log\ntext", "waited n s; last seen: jobs has n rows"),
        ("w~1/http.put[key-7]#7:freeze=held,0.1: it did not fire", "a fault: it did not fire"),
        ("nothing was broken at w.x~0/w.taken#2", "nothing was broken at a point"),
        ("[key-1] is w~1's", "[…] is w~n's"),
        ("key 1e3d7e23-18ac-448e-b666-1443f0f6271f is gone", "key … is gone"),
        ("/x/lane_098c23_20/ledger.jsonl is odd", "/x/lane_…_n/ledger.jsonl is odd"),
        ("it did not fire; arrivals were seen at a/b, c/d", "it did not fire; arrivals were seen at …"),
    ],
)
def test_reasons(reason: str, left: str) -> None:
    """Of a reason, points, keys, ids, numbers and all lines but the first do not count."""
    assert abstract(reason) == left


def test_unknown_ones() -> None:
    """Unknown schedules are alike if their reasons are, in whatever order."""
    first = Outcome("x", "unknown", reasons=("waited 1 s", "odd"))
    second = Outcome("y", "unknown", reasons=("odd", "waited 2 s"))
    third = Outcome("z", "unknown")

    assert [group.outcomes for group in undecided([third, first, second])] == [(first, second), (third,)]
