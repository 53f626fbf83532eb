"""What the order of effects gives away: each rule on a history that breaks it, and on one that only looks like it."""

from __future__ import annotations

import pytest

from chaos.advice import advice
from chaos.history import Asked, Event, Replied


def history(*steps: str) -> list[Event]:
    """Events from words: ``http.post`` is asked and done, ``http.post>`` only asked, ``<http.post`` done then."""
    events: list[Event] = []
    numbers: dict[str, int] = {}
    for at, step in enumerate(steps):
        site = step.strip("<>")
        if not step.startswith("<"):
            numbers[site] = at
            points = (f"w~0/{site}#1", f"w~0/{site}[key-1]#1")
            events.append(Asked(float(at), points, "w.0", 1, at))
        if not step.endswith(">"):
            events.append(Replied(float(at), f"w~0/{site}#1", "done", 1, numbers[site]))
    return events


POST, COMMIT, OFFSET = "http.post", "postgres.commit", "kafka.offset_commit"


@pytest.mark.parametrize(
    ("steps", "rules"),
    [
        ((POST, COMMIT, OFFSET), set()),
        ((OFFSET, POST, COMMIT), {"offset before effect"}),
        ((POST, OFFSET, COMMIT), {"offset before effect"}),
        ((f"{POST}>", OFFSET, f"<{POST}", COMMIT), {"commit ahead of the work", "offset before effect"}),
        ((COMMIT, POST, OFFSET), {"effect outside the transaction"}),
        (("postgres.write", "kafka.produce"), {"effect outside the transaction"}),
        (("kafka.produce", "postgres.write"), set()),
        ((OFFSET, OFFSET), set()),
    ],
)
def test_rules(steps: tuple[str, ...], rules: set[str]) -> None:
    """Each rule speaks of the orders that it is about, and of no other."""
    assert {one.rule for one in advice(history(*steps))} == rules


def test_points_are_named() -> None:
    """Advice names the two points whose order it is about."""
    [one] = advice(history(OFFSET, POST))
    assert str(one) == "offset before effect: w~0/kafka.offset_commit[key-1]#1 before w~0/http.post[key-1]#1"


def test_other_workers_and_keys() -> None:
    """What another worker does, or the same one about no key or another, is no concern of a rule."""
    offset, _ = history(OFFSET)
    post, _ = history(POST)
    assert isinstance(offset, Asked)
    assert isinstance(post, Asked)
    others = [
        Asked(1.0, post.points, "v.0", 2, 1),
        Asked(2.0, post.points[:1], "w.0", 3, 1),
        Asked(3.0, ("w~0/http.post#2", "w~0/http.post[key-2]#1"), "w.0", 4, 1),
    ]
    assert advice([offset, *others]) == []


def test_what_was_lost_or_refused() -> None:
    """An effect that has not taken place is in no order with others."""
    events = history(OFFSET, POST)
    events[-1] = Replied(9.0, "w~0/http.post#1", "refused", 1, 1)
    assert advice(events) == []
