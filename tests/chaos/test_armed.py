"""Which faults that never fired are excused, as what fired has changed the course of things, and which are not."""

from __future__ import annotations

import pytest

from chaos.armed import Armed
from chaos.schedule import Schedule

FIRST, SECOND = "pay/http.post[key-1]#1:crash-after", "relay/kafka.produce[key-1]#1:crash-after"


def armed(*, certain: bool, fired: int | None) -> Armed:
    """Two faults are armed, of which one has fired, or none."""
    schedule = Schedule.parse(f"{FIRST}; {SECOND}")
    one = Armed(schedule, certain=[fault.point for fault in schedule.faults] if certain else ())
    if fired is not None:
        one.reached(fired)
        one.over(fired)
        one.broke(schedule.faults[fired], "w", "was ended by SIGKILL")
    return one


@pytest.mark.parametrize("certain", [True, False])
def test_a_later_fault(*, certain: bool) -> None:
    """One that stands behind a fault that fired is not reached, and the run is judged without it."""
    one = armed(certain=certain, fired=0)
    assert [str(fault) for fault in one.not_reached] == [str(Schedule.parse(SECOND))]
    assert one.reasons() == []
    assert one.late


def test_an_earlier_fault() -> None:
    """One that stands before it was to fire, unless it was drawn, and every run comes to its point."""
    [reason] = armed(certain=False, fired=1).reasons()
    assert "http.post[key-1]#1:crash-after did not fire" in reason
    one = armed(certain=True, fired=1)
    assert one.reasons() == []
    assert [str(fault) for fault in one.not_reached] == [str(Schedule.parse(FIRST))]
    assert not one.late, "it may still come: it is given the whole grace"


@pytest.mark.parametrize("certain", [True, False])
def test_nothing_fired(*, certain: bool) -> None:
    """Where nothing fired, nothing is excused."""
    one = armed(certain=certain, fired=None)
    assert one.not_reached == []
    assert len(one.reasons()) == 2
