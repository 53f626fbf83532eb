"""The worker is broken at each of its effects, and every customer is told all the same, and only once."""

import pytest
from chaos import System

import bugs
from notifier import worker

pytestmark = pytest.mark.drills

EFFECTS = ["http.post", "postgres.commit", "kafka.offset_commit"]
FAULTS = ["crash-before", "crash-after", "lose-request", "lose-reply"]


def test_nothing_broken(notifier: System) -> None:
    """Each event is one request, one COMMIT and one offset, in that order."""
    verdict = notifier.drill()

    verdict.require_holds()
    assert [verdict.requests(event) for event in verdict.keys] == [1, 1, 1]
    for effect in EFFECTS:
        assert sum(f"/{effect}#" in text and "done" in text for text in verdict.events) == 3, effect


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("effect", EFFECTS)
def test_broken_at(notifier: System, effect: str, fault: str) -> None:
    """One message is sent and one receipt kept for each event; asked for twice is only what was done and not kept."""
    verdict = notifier.drill(f"notifier/{effect}#2:{fault}")

    verdict.require_holds()
    asked_twice = (effect, fault) in {
        ("http.post", "crash-after"),
        ("http.post", "lose-reply"),
        ("postgres.commit", "crash-before"),
        ("postgres.commit", "lose-request"),
    }
    assert sorted(verdict.requests(event) for event in verdict.keys) == [1, 1, 1 + asked_twice]
    receipts = notifier.lane.execute(
        "select event_id from notifications where event_id = any(%s)", [list(verdict.keys)]
    )
    assert sorted(receipts) == sorted((event,) for event in verdict.keys)


@pytest.mark.parametrize("notifier", [(worker.main, 1)], indirect=True, ids=["one event"])
def test_frozen_until_another_took_over(notifier: System) -> None:
    """A worker that sleeps until its partition is another's does no harm when it wakes up, and goes on."""
    verdict = notifier.drill("notifier/kafka.offset_commit:freeze=held,5")

    verdict.require_holds()
    assert "another had taken over" in str(verdict.fired[0])
    notifier.drill().require_holds()


@pytest.mark.parametrize("notifier", [(bugs.offset_before_effect, 1)], indirect=True, ids=["offset before effect"])
def test_lost_message_is_found(notifier: System) -> None:
    """A worker that commits the offset first never sends what it was killed before, and the drill says which."""
    verdict = notifier.drill("notifier/http.post:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.requests(violation.key)) == ("nothing lost", 0)
