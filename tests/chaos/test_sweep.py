"""What a sweep tries, counts and says, on a small worker that is correct or not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from chaos import Undecided, UnknownName, Violated, one_effect_per_key
from chaos.sweep import everything
from tests.chaos.test_recording import SITES, jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos import Invariant, Session, System

LOSSES = ("crash-before", "crash-after", "lose-request", "lose-reply")


@pytest.fixture(scope="module")
def working(onecharge: Session) -> Iterator[System]:
    """A correct worker of two jobs."""
    with jobs(onecharge) as system:
        yield system


def test_every_point_by_every_fault(working: System) -> None:
    """A sweep of a correct worker breaks each point by each fault that can be done there, and holds."""
    sweep = working.sweep()
    sweep.require_holds()
    assert sweep.broken == sweep.selected == sweep.recording.points
    done = Counter(str(verdict.schedule) for verdict in sweep.verdicts)
    assert set(done.values()) == {1}
    impossible = 4  # `repeat` is for HTTP, not for two produces and two commits
    assert len(done) == 6 * len(everything()) - impossible - len(sweep.merged)
    assert "6 of 6 broken" in sweep.story()
    assert all(site in sweep.table() for site in SITES)


def test_neighbours_are_one(working: System) -> None:
    """Where nothing lies between two effects of one process, a crash after the first is the one before the second."""
    recording = working.record()
    allowed = {f"w~0/http.post[key-{n}]#1": f"w~0/kafka.produce[key-{n}]#1" for n in (1, 2)}
    assert recording.same.items() <= allowed.items()  # before the commit stand statements: those are never merged
    assert recording.same, "a single worker: nobody else comes in between"


def test_recovery_is_broken_too(working: System) -> None:
    """At depth 2 what a schedule shows beyond the recording is broken again: the restarted worker, the second try."""
    sweep = working.sweep(only=["w/postgres.commit"], faults=["crash-before", "lose-reply"], depth=2)
    sweep.require_holds()
    second = {
        str(verdict.schedule).partition("; ")[2] for verdict in sweep.verdicts if len(verdict.schedule.faults) > 1
    }
    assert "w~1/http.post[key-1]#1:crash-after" in second
    assert all(
        fault.startswith(("w~1/", "w~0/http.post[", "w~0/kafka.produce[", "w~0/postgres.commit[")) for fault in second
    )
    assert any(len(verdict.fired) == 2 for verdict in sweep.verdicts)


def test_what_cannot_be_done_is_no_schedule(working: System) -> None:
    """A fault that turns out to be impossible at a point is counted apart, and spoils nothing."""
    sweep = working.sweep(only=["w/http.post"], faults=["lose-reply", "refuse=NOT_COORDINATOR"])
    sweep.require_holds()
    assert sum(bool(verdict.unfit) for verdict in sweep.verdicts) == 2


def test_baseline(working: System, tmp_path: Path) -> None:
    """Where there is no baseline one is written, to be looked at; a point that it lacks, or has in vain, is said."""
    baseline = tmp_path / "baselines" / "jobs.txt"
    choice: dict[str, Any] = {"only": ["w/http.post"], "faults": ["crash-after", "lose-reply"], "baseline": baseline}
    sweep = working.sweep(**choice)
    assert (sweep.status, len(sweep.reasons)) == ("unknown", 1)
    assert "it was written. Look at it" in sweep.reasons[0]
    assert baseline.read_text().splitlines() == [f"w~0/http.post[key-{n}]#1  crash-after lose-reply" for n in (1, 2)]
    working.sweep(**choice).require_holds()
    baseline.write_text(baseline.read_text().replace("key-2", "key-7"))
    sweep = working.sweep(**choice)
    assert sweep.status == "unknown"
    assert sweep.reasons[0] == "not in the baseline jobs.txt: w~0/http.post[key-2]#1  crash-after lose-reply"
    assert "and not found: w~0/http.post[key-7]#1" in sweep.reasons[1]


def test_violation_is_told(onecharge: Session) -> None:
    """A sweep that breaks an invariant says by which schedules, and may end at the first."""
    with jobs(onecharge) as system:
        system.invariants = (*system.invariants, once(system))
        sweep = system.sweep(only=["w/http.post", "w/postgres.commit"], faults=LOSSES)
        assert sweep.status == "violated"
        found = {str(verdict.schedule) for verdict in sweep.verdicts if verdict.status == "violated"}
        assert found == {
            f"w~0/{where}"
            for n in (1, 2)
            for where in (
                f"http.post[key-{n}]#1:crash-after",
                f"http.post[key-{n}]#1:lose-reply",
                f"postgres.commit[key-{n}]#1:crash-before",
                f"postgres.commit[key-{n}]#1:lose-request",
            )
        }
        with pytest.raises(Violated, match="has 2 effects"):
            sweep.require_holds()
        sweep = system.sweep(faults=LOSSES, until_violated=True)
        assert [verdict.status == "violated" for verdict in sweep.verdicts] == [False] * (len(sweep.verdicts) - 1) + [
            True
        ]
        system._held.clear()  # what held then is not what this test is about


def once(system: System) -> Invariant:
    """The invariant that a job is done once, which this worker's service does not see to."""
    return one_effect_per_key(system.invariants[0].ledger)


def test_site_that_is_not_there(working: System) -> None:
    """What is to be swept alone has to be there; the nearest is named."""
    with pytest.raises(UnknownName, match=r"did you mean 'w/http\.post'"):
        working.sweep(only=["w/http.pots"])


def test_nothing_to_break(onecharge: Session) -> None:
    """A system of which nothing was seen is not swept in vain and called good."""
    with jobs(onecharge) as system:
        system.workload = lambda _run: None
        sweep = system.sweep()
    assert sweep.status == "unknown"
    with pytest.raises(Undecided, match="nothing accepted"):
        sweep.require_holds()
