"""A worker is killed at every point that matters, and every invoice is mailed all the same, and only once."""

import pytest
from chaos import System

import bugs
from mailer import worker

pytestmark = pytest.mark.drills


@pytest.mark.parametrize(("point", "asked"), [("job.taken", 1), ("job.mailed", 2), ("job.marked", 2)])
def test_crash(mailer: System, point: str, asked: int) -> None:
    """The job in hand is mailed once, though the service is asked for it again if it had been asked before the crash."""
    verdict = mailer.drill(f"mailer/{point}:crash-before")

    verdict.require_holds()
    assert len(verdict.fired) == 1
    assert sorted(verdict.requests(job) for job in verdict.keys) == [1, 1, asked]
    assert [verdict.effects(job) for job in verdict.keys] == [1, 1, 1]


@pytest.mark.parametrize("mailer", [(worker.main, 1)], indirect=True, ids=["function"])
def test_crash_after_crash(mailer: System) -> None:
    """A worker that is killed, and killed again at the same job, has the service asked three times for one mail."""
    verdict = mailer.drill("mailer/job.mailed:crash-before; mailer~1/job.mailed:crash-before")

    verdict.require_holds()
    assert len(verdict.fired) == 2
    assert sorted(verdict.requests(job) for job in verdict.keys) == [1, 1, 3]


@pytest.mark.parametrize("mailer", [(bugs.new_key_per_attempt, 1)], indirect=True, ids=["new key per attempt"])
def test_double_mail_is_found(mailer: System) -> None:
    """A worker with a new key for each attempt mails twice, and the drill says which job."""
    verdict = mailer.drill("mailer/job.mailed:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.effects(violation.key)) == ("one effect per key", 2)


@pytest.mark.parametrize("mailer", [(bugs.marked_before_mailed, 1)], indirect=True, ids=["marked before mailed"])
def test_lost_mail_is_found(mailer: System) -> None:
    """A worker that marks a job as done before it mails loses it, and the drill says which."""
    verdict = mailer.drill("mailer/job.marked:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.requests(violation.key)) == ("nothing lost", 0)


def test_fault_that_does_not_fire_proves_nothing(mailer: System) -> None:
    """Of three jobs nobody takes a fourth: the verdict is `unknown`, which is not green."""
    verdict = mailer.drill("mailer/job.taken#4:crash-before")

    assert verdict.status == "unknown"
    assert not verdict.fired
    assert "mailer~0/job.taken#4:crash-before did not fire" in verdict.reasons[0]
