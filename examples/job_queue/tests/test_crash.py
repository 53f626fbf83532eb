"""A worker is killed at every point that matters, and every invoice is mailed all the same, and only once."""

import pytest
from bugs import marked_before_mailed, new_key_per_attempt
from conftest import mailing

from chaos import Session, System

pytestmark = pytest.mark.drills


@pytest.mark.parametrize(("point", "asked"), [("job.taken", 1), ("job.mailed", 2), ("job.marked", 2)])
@pytest.mark.parametrize("nth", [1, 3])
def test_crash(mailer: System, point: str, nth: int, asked: int) -> None:
    """The job in hand is mailed once, although the service is asked again unless the crash came before the first time."""
    verdict = mailer.drill(f"mailer/{point}#{nth}:crash-before")

    verdict.require_holds()
    assert len(verdict.fired) == 1
    assert sorted(verdict.requests(job) for job in verdict.keys) == [1, 1, asked]
    assert [verdict.effects(job) for job in verdict.keys] == [1, 1, 1]


def test_crash_again(mailer: System) -> None:
    """A worker that is killed once more when it has been restarted changes nothing about it."""
    ...


def test_double_mail_is_found(onecharge: Session) -> None:
    """A worker with a new key for each attempt mails twice, and the drill says which job."""
    with mailing(onecharge, new_key_per_attempt) as system:
        verdict = system.drill("mailer/job.mailed:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.effects(violation.key)) == ("one effect per key", 2)


def test_lost_mail_is_found(onecharge: Session) -> None:
    """A worker that marks a job as done before it mails loses it, and the drill says which."""
    with mailing(onecharge, marked_before_mailed) as system:
        verdict = system.drill("mailer/job.marked:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.requests(violation.key)) == ("nothing lost", 0)


def test_fault_that_does_not_fire_proves_nothing(mailer: System) -> None:
    """Of three jobs nobody takes a fourth: the verdict is `unknown`, which is not green."""
    verdict = mailer.drill("mailer/job.taken#4:crash-before")

    assert verdict.status == "unknown"
    assert not verdict.fired
    assert "mailer~0/job.taken#4:crash-before did not fire" in verdict.reasons[0]
