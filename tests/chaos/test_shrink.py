"""A schedule is made smaller by runs that may come out differently: always, within a budget, never with an error."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.schedule import Fault, Schedule
from chaos.shrink import runs_for, shrink, smaller
from chaos.waiting import Deadline

BIG = (
    "relay/kafka.produce[key-3]#2:lose-reply=silent; api/postgres.commit[key-3]#1:delay=1; pay/http.post[key-3]#1:hold"
)
FAULTS = st.builds(
    Fault,
    st.sampled_from(["relay", "pay"]),
    st.sampled_from(["kafka.produce", "http.post"]),
    st.sampled_from(["crash-before", "lose-reply", "freeze", "hold"]),
    nth=st.integers(1, 3),
    key=st.sampled_from(["", "key-1", "key-2", "job"]),
)


class Bug:
    """Shows where something crashes at the relay and something happens at pay, in `rate` of the runs."""

    def __init__(self, rate: float, seed: int = 0) -> None:
        self.rate, self.runs = rate, 0
        self._random = random.Random(seed)

    def once(self, schedule: Schedule) -> bool:
        """Whether it shows in this run."""
        self.runs += 1
        there = {fault.worker for fault in schedule.faults} >= {"relay", "pay"}
        return there and self._random.random() < self.rate

    def __call__(self, schedule: Schedule, times: int) -> bool:
        """Whether it shows in one of so many."""
        return any(self.once(schedule) for _ in range(times))


def test_smallest() -> None:
    """What does not matter is left out; what does is made as simple as it can be, keys and counts as low."""
    bug = Bug(1.0)
    *_, found = shrink(Schedule.parse(BIG), bug, 1.0, Deadline(60))
    simple = "relay~0/kafka.produce[key-1]#1:crash-before; pay~0/http.post[key-1]#1:crash-before"
    assert str(found) == simple
    assert bug.runs < 25


@pytest.mark.parametrize("rate", [0.9, 0.6, 0.3])
def test_flaky_bug(rate: float) -> None:
    """A bug that shows in some of the runs only is made as small as one that always does, nearly every time."""
    sizes = []
    for seed in range(50):
        *_, found = shrink(Schedule.parse(BIG), Bug(rate, seed), rate, Deadline(60))
        assert Bug(1.0).once(found), "what is returned was seen to violate"
        sizes.append(len(found.faults))
    assert sizes.count(2) >= 40


def test_who_was_not_killed_has_no_successor() -> None:
    """When a crash is left out, its worker's later faults are those of the one that was not killed."""
    begun = "pay/http.post[key-2]#1:crash-after; relay/kafka.produce[key-1]#1:crash-after"

    def violates(schedule: Schedule, _times: int) -> bool:
        last = schedule.faults[-1]
        kills = sum(fault.worker == "pay" and fault.action.startswith("crash") for fault in schedule.faults[:-1])
        return (last.worker, last.incarnation) == ("pay", kills) and len({one.worker for one in schedule.faults}) == 2

    *_, found = shrink(Schedule.parse(f"{begun}; pay~1/http.post[key-1]#1:crash-after"), violates, 1.0, Deadline(60))
    assert str(found) == "relay~0/kafka.produce[key-1]#1:crash-before; pay~0/http.post[key-1]#1:crash-before"


def test_rarer_is_not_smaller() -> None:
    """A simpler schedule that violates now and then does not take the place of one that always does."""
    begun = Schedule.parse("pay/http.post#1:crash-late=2")
    kept = 0
    for seed in range(50):
        chance = random.Random(seed)

        def violates(schedule: Schedule, times: int, chance: random.Random = chance) -> bool:
            return any(schedule == begun or chance.random() < 0.1 for _ in range(times))

        kept += shrink(begun, violates, 1.0, Deadline(60)) == [begun]
    assert kept >= 45


def test_only_what_is_allowed() -> None:
    """Where only some faults are tried, what is found is made smaller by these alone."""
    begun = Schedule.parse("relay/kafka.produce[key-2]#1:lose-reply=silent; pay/http.post[key-2]#1:lose-reply")
    steps = shrink(begun, Bug(1.0), 1.0, Deadline(60), ["lose-reply", "lose-reply=silent", "lose-request"])
    assert str(steps[-1]) == "relay~0/kafka.produce[key-1]#1:lose-request; pay~0/http.post[key-1]#1:lose-request"


def test_budget() -> None:
    """No run begins after the deadline; what was found by then is returned."""
    bug = Bug(1.0)
    assert shrink(Schedule.parse(BIG), bug, 1.0, Deadline(0)) == [Schedule.parse(BIG)]
    assert bug.runs == 0


def test_number_of_runs() -> None:
    """The rarer a bug is, the more runs it takes to be sure that it is not there, up to a limit."""
    assert [runs_for(rate) for rate in (1.0, 0.9, 0.6, 0.5, 0.1, 0.0)] == [1, 2, 5, 6, 8, 8]


@given(st.lists(FAULTS, min_size=1, max_size=3))
def test_it_ends(faults: list[Fault]) -> None:
    """Each step is to a simpler schedule, never to one that was left: where all violate, one fault is left."""
    schedule = Schedule(tuple(faults))
    assert schedule not in set(smaller(schedule))
    *_, found = shrink(schedule, lambda _schedule, _times: True, 1.0, Deadline(60))
    [last] = found.faults
    stem = "key-1" if last.key.startswith("key-") else last.key
    assert last == replace(last, action="crash-before", value="", nth=1, key=stem)
    assert list(smaller(found)) == []
