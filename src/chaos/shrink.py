"""Make a schedule that violates smaller, by runs that may come out differently each time, within a budget of seconds.

First each fault is left out, then each is replaced by a simpler one, then keys and counts are lowered, again from the
start whenever one of these still violates. A candidate is run until it violates, and given up after so many runs that a
bug as frequent as the one that was found would have shown with a probability of 98 %. So a bug that shows in six of ten
runs costs a few more runs, never an error: what is returned has been seen to violate. It has to do so twice: what shows
once in ten runs is no smaller form of what always shows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from chaos import faults as kinds
from chaos.schedule import CRASH_BEFORE, Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from chaos.schedule import Fault
    from chaos.waiting import Deadline

SIMPLE = (CRASH_BEFORE, "crash-after", "lose-request", "lose-reply")
_SURE = 0.02
_MOST_RUNS = 8


def runs_for(rate: float) -> int:
    """How often to run what should violate at this rate, to have seen it."""
    if rate >= 1:
        return 1
    return min(_MOST_RUNS, math.ceil(math.log(_SURE) / math.log(1 - max(rate, _SURE))))


def smaller(schedule: Schedule, allowed: Collection[str] | None = None) -> Iterator[Schedule]:
    """Schedules that are a step simpler, the boldest first; nothing is done at a point that is not `allowed`."""
    faults = schedule.faults
    for number, fault in enumerate(faults if len(faults) > 1 else ()):
        yield Schedule((*faults[:number], *_behind(faults, number, -_kills(fault))))
        yield Schedule(faults[:number] + faults[number + 1 :])
    for number, fault in enumerate(faults):
        simpler = SIMPLE[: SIMPLE.index(fault.action) if fault.action in SIMPLE else None]
        for action in (one for one in simpler if allowed is None or one in allowed):
            one = replace(fault, action=action, value="", link="")
            yield Schedule((*faults[:number], one, *_behind(faults, number, _kills(one) - _kills(fault))))
        ours = fault.value and not fault.link and fault.action in kinds.registered()
        known = kinds.kind(fault.action).swept if ours else ()
        if "" in known and (allowed is None or fault.action in allowed):
            yield Schedule((*faults[:number], replace(fault, value=""), *faults[number + 1 :]))
    for key in sorted({fault.key for fault in faults if fault.key.rpartition("-")[2].isdecimal()}):
        stem, _, counted = key.rpartition("-")
        if int(counted) > 1:
            yield Schedule(tuple(replace(one, key=f"{stem}-1") if one.key == key else one for one in faults))
    for number, fault in enumerate(faults):
        if fault.nth > 1:
            yield Schedule((*faults[:number], replace(fault, nth=1), *faults[number + 1 :]))


def _kills(fault: Fault) -> int:
    return int(fault.action.startswith("crash"))


def _behind(faults: tuple[Fault, ...], number: int, more: int) -> Iterator[Fault]:
    """What comes behind a fault, as it is called when its worker is killed so many times more, or less, before."""
    for one in faults[number + 1 :]:
        mine = one.worker == faults[number].worker
        yield replace(one, incarnation=max(0, one.incarnation + more)) if mine else one


def shrink(
    schedule: Schedule,
    violates: Callable[[Schedule, int], bool],
    rate: float,
    deadline: Deadline,
    allowed: Collection[str] | None = None,
) -> list[Schedule]:
    """The schedule, and smaller ones that were found by the deadline to violate, the smallest last.

    Args:
        schedule: violates, at this `rate` of its runs.
        violates: runs a schedule until it violates, so many times at most, and says whether it did. What cannot be
            carried out does not violate.
        rate: from 0 to 1.
        deadline: of the last candidate's first run.
        allowed: what may be done at points, such as ``crash-after``; by default all there is.
    """
    steps, runs = [schedule], runs_for(rate)
    tried = {schedule}
    while True:
        for candidate in smaller(steps[-1], allowed):
            if deadline.passed:
                return steps
            if candidate not in tried:
                tried.add(candidate)
                if violates(candidate, runs) and violates(candidate, runs):
                    steps.append(candidate)
                    break
        else:
            return steps
