"""Every seeded bug is found by the schedules that it is said to be found by, and its correct brother holds under them.

Those that need two faults in two workers to be found hold under either of the two alone.

A twin and its brother are the same system but for the bug (`tests/twins/systems.py`), each kept for all its schedules.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from chaos.schedule import Schedule
from tests.twins.systems import TWINS, TWO_FAULT_TWINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Session, System
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

ALL = TWINS | TWO_FAULT_TWINS
CASES = [(name, schedule) for name, twin in ALL.items() for schedule in twin.schedules]
HALVES = {
    (name, str(half)): None  # each once
    for name, twin in TWO_FAULT_TWINS.items()
    for schedule in twin.schedules
    for half in Schedule.parse(schedule).faults
}


@pytest.fixture(scope="module")
def running(onecharge: Session) -> Iterator[Callable[[Make], System]]:
    """Systems by what makes them; the one that was made last runs."""
    with ExitStack() as stack:
        made: list[tuple[Make, System]] = []  # one at most

        def run(make: Make) -> System:
            if not made or made[0][0] is not make:
                stack.pop_all().close()
                made[:] = [(make, stack.enter_context(make(onecharge)))]
            return made[0][1]

        yield run


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_a_twin_is_found(running: Callable[[Make], System], name: str, schedule: str) -> None:
    """All of the schedule fires, and the drill says which invariant the twin has broken, and for which order."""
    twin = ALL[name]
    verdict = running(twin.system).drill(schedule)
    assert len(verdict.fired) == len(verdict.schedule.faults), verdict.story(events=True)
    assert verdict.status == "violated", verdict.story(events=True)
    assert {violation.invariant for violation in verdict.violations} == {twin.invariant}
    assert {violation.key for violation in verdict.violations} <= set(verdict.keys)


@pytest.mark.parametrize(("name", "schedule"), CASES)
def test_its_brother_holds(running: Callable[[Make], System], name: str, schedule: str) -> None:
    """All of the schedule fires, and without the bug each order is charged once."""
    verdict = running(ALL[name].brother).drill(schedule)
    verdict.require_holds()
    assert sorted(fired.fault for fired in verdict.fired) == sorted(str(fault) for fault in verdict.schedule.faults)


@pytest.mark.parametrize(("name", "fault"), HALVES)
def test_half_of_two_faults_does_no_harm(running: Callable[[Make], System], name: str, fault: str) -> None:
    """One of the two faults fires, and with the bug each order is charged once all the same."""
    verdict = running(ALL[name].system).drill(fault)
    verdict.require_holds()
    assert [fired.fault for fired in verdict.fired] == [fault]
