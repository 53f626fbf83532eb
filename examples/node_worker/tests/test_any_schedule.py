"""Whatever is broken, in whatever order: schedules of several faults that nobody has thought of."""

import chaos
import pytest
from chaos import Schedule, System

pytestmark = pytest.mark.drills


# No seed: that nothing was found says more with every run if each tries something else. What is found does not depend
# on the seed to be found again: it is told as a line that replays it, and is tried first the next time.
@chaos.explore(max_faults=2, seconds=10)
def test_any_schedule(payouts: System, schedule: Schedule) -> None:
    """Each payout is made once and told, whatever two faults do to two workers."""
    payouts.drill(schedule).require_holds()


@pytest.mark.parametrize("payouts", ["node tests/bugs.js new-key"], indirect=True, ids=["new key"])
def test_bug_is_found(payouts: System) -> None:
    """A worker with a new key for each attempt is found out, and what is left of the schedule finds it again."""
    # With a seed: that something is found has to be no matter of luck. A budget is only what it may take at most.
    exploration = payouts.explore(max_faults=2, seconds=60, seed=5)
    found = exploration.counterexample

    assert exploration.status == "violated"
    assert found is not None
    assert len(found.smallest.schedule.faults) == 1
    again = payouts.drill(str(found.smallest.schedule))
    assert {violation.invariant for violation in again.violations} == {"one effect per key"}
