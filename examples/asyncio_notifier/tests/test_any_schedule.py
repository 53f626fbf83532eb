"""Whatever is broken, in whatever order: schedules of several faults that nobody has thought of, in two lanes at once."""

import chaos
import pytest
from chaos import Lanes, Schedule, System

import bugs

pytestmark = pytest.mark.drills


# No seed: that nothing was found says more with every run if each tries something else. What is found does not depend
# on the seed to be found again: it is told as a line that replays it, and is tried first the next time.
@chaos.explore(max_faults=2, seconds=10)
def test_any_schedule(notifiers: System, schedule: Schedule) -> None:
    """Everybody is notified once, whatever two faults do; here the fixture's name is the system of one of its lanes."""
    notifiers.drill(schedule).require_holds()


@pytest.mark.parametrize("notifiers", [(bugs.offset_before_effect, 2)], indirect=True, ids=["offset before effect"])
def test_bug_is_found(notifiers: Lanes) -> None:
    """A worker that commits the offset first is found out, and what is left of the schedule finds it again."""
    # With a seed: that something is found has to be no matter of luck. A budget is only what it may take at most.
    exploration = notifiers.explore(max_faults=2, seconds=60, seed=1)
    found = exploration.counterexample

    assert exploration.status == "violated"
    assert found is not None
    assert len(found.smallest.schedule.faults) == 1
    again = notifiers.drill(str(found.smallest.schedule))
    assert {violation.invariant for violation in again.violations} == {"nothing lost"}
