"""Whatever is broken, in whatever order: schedules of several faults that nobody has thought of."""

import chaos
import pytest
from chaos import Fault, Schedule, System
from hypothesis import given, settings

import bugs
from mailer import worker

pytestmark = pytest.mark.drills

TWO = pytest.mark.parametrize("mailer", [(worker.main, 2)], indirect=True, ids=["two replicas"])
ASKS = [Fault.parse(f"mailer/http.post[key-{n}]:{what}") for n in (1, 2, 3) for what in ("lose-reply", "crash-after")]


# No seed: that nothing was found says more with every run if each tries something else. What is found does not depend
# on the seed to be found again: it is told as a line that replays it, and is tried first the next time.
@TWO
@chaos.explore(max_faults=3, seconds=10)
def test_any_schedule(mailer: System, schedule: Schedule) -> None:
    """Each job is mailed once, whatever three faults do to two workers."""
    mailer.drill(schedule).require_holds()


@TWO
@settings(max_examples=10, deadline=None)
@given(schedule=chaos.schedules(ASKS, max_faults=2))
def test_lost_answers(mailer: System, schedule: Schedule) -> None:
    """Whichever answers of the mail service are lost, those are asked for again that were, and have one effect."""
    verdict = mailer.drill(schedule, report=False)

    verdict.require_holds()
    asked = sum(verdict.requests(job) for job in verdict.keys)
    assert asked == 3 + len(verdict.fired)
    assert [verdict.effects(job) for job in verdict.keys] == [1, 1, 1]


@pytest.mark.parametrize("mailer", [(bugs.retried_out_of_the_transaction, 1)], indirect=True, ids=["retried outside"])
def test_bug_of_two_faults_is_found(mailer: System) -> None:
    """A mail that is lost only if a failed attempt is followed by a crash is found, and its text finds it again."""
    # With a seed: that something is found has to be no matter of luck. A budget is only what it may take at most.
    exploration = mailer.explore(max_faults=3, seconds=60, seed=2)
    found = exploration.counterexample

    assert exploration.status == "violated"
    assert found is not None
    assert len(found.smallest.schedule.faults) == 2
    again = mailer.drill(str(found.smallest.schedule))
    assert {violation.invariant for violation in again.violations} == {"nothing lost"}
