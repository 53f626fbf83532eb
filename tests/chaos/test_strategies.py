"""Schedules as Hypothesis draws them: plain data, in an order in which their faults can fire."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given

from chaos import ChaosError, UnknownName, schedules
from chaos.schedule import Fault, Schedule
from chaos.strategies import candidates, drawn
from tests.chaos.test_exploration import POINTS, RECORDING

CHOICES = candidates(RECORDING)
LATER = (Fault.parse("pay~0/http.post[key-1]#2:crash-before"),)
FEW = candidates(RECORDING, faults=["crash-before"])  # so that what comes later is drawn often
PLACE = {point: number for number, point in enumerate((*POINTS, LATER[0].point))}


@given(schedules(CHOICES, later=LATER))
def test_order(schedule: Schedule) -> None:
    """Faults are in the order of the recording, each at a point of its own, three at most."""
    faults = [replace(fault, incarnation=0) if fault not in LATER else fault for fault in schedule.faults]
    assert 1 <= len(faults) <= 3
    assert [PLACE[fault.point] for fault in faults] == sorted(PLACE[fault.point] for fault in faults)
    assert len({fault.point for fault in schedule.faults}) == len(faults)


@given(schedules(CHOICES, later=LATER))
def test_who_was_killed_is_its_successor(schedule: Schedule) -> None:
    """A fault of a recorded point is its worker's after as many kills as stand before it."""
    kills = {"relay": 0, "pay": 0}
    for fault in schedule.faults:
        if fault not in LATER:
            assert fault.incarnation == kills[fault.worker]
        kills[fault.worker] += fault.action.startswith("crash")


@given(schedules(FEW, later=LATER))
def test_recoveries_stand_behind_what_brings_them_about(schedule: Schedule) -> None:
    """What only a recovery shows stands behind a fault of the same worker about the same key."""
    for number, fault in enumerate(schedule.faults):
        if fault in LATER:
            assert any((one.worker, one.key) == ("pay", "key-1") for one in schedule.faults[:number])


@given(schedules(CHOICES))
@example(schedule=Schedule.parse("pay/http.post[key-1]#1:crash-before; pay~1/http.post[key-1]#1:lose-reply"))
def test_text_form(schedule: Schedule) -> None:
    """What was drawn is a line of text and back again; one can be pinned with Hypothesis's own `example`."""
    assert Schedule.parse(str(schedule)) == schedule


def test_counts_begin_anew() -> None:
    """A point that has no key is counted from 1 again once its worker was killed."""
    third = Fault.parse("pay/pay.done#3:crash-before")
    seen = {str(schedule) for schedule in drawn(schedules([third]), 50, 1)}
    again = [str(third), "pay~1/pay.done#1:crash-before", "pay~2/pay.done#1:crash-before"]
    assert seen == {"; ".join(again[:count]) for count in (1, 2, 3)}


def test_drawn() -> None:
    """As many as were asked for, if there are, each once; the same for the same seed."""
    strategy = schedules(CHOICES)
    some = drawn(strategy, 100, 1)
    assert len(some) == len(set(some)) > 60
    assert some == drawn(strategy, 100, 1) != drawn(strategy, 100, 2)
    assert len(drawn(schedules(CHOICES[:1], max_faults=1), 100, 1)) == 1


def test_choice() -> None:
    """Workers, sites and faults can be chosen; what is not there is an error, as is nothing to choose from."""
    some = candidates(RECORDING, faults=["crash-before"], only=["pay/http.post"])
    assert [str(fault) for fault in some] == [f"pay~0/http.post[key-{n}]#1:crash-before" for n in (1, 2, 3)]
    with pytest.raises(UnknownName, match="did you mean 'pay'"):
        candidates(RECORDING, only=["pays"])
    for choices, most in (((), 3), (CHOICES, 0)):
        with pytest.raises(ChaosError, match="no schedules"):
            schedules(choices, max_faults=most)
