"""An exploration is led to what it has tried least."""

from __future__ import annotations

from chaos.armed import Fired
from chaos.drill import Verdict
from chaos.guide import Guide, features
from chaos.schedule import Schedule

RELAY, PAY = "relay/kafka.produce[key-1]#1:crash-after", "pay/http.post[key-1]#1:crash-before"
SINGLE, SAME, OTHER = (
    Schedule.parse(text) for text in (RELAY, f"{RELAY}; {PAY}", f"{RELAY}; {PAY}".replace("1]", "2]", 1))
)
WORKER = Schedule.parse(f"{RELAY}; relay~1/kafka.produce[key-1]#1:crash-after")


def fired(schedule: Schedule, count: int) -> Verdict:
    """A verdict of a schedule of which the first faults have fired."""
    return Verdict(schedule, (), fired=[Fired(str(one), one.worker, "") for one in schedule.faults[:count]])


def test_what_is_new_comes_first() -> None:
    """A pair in two workers before one in the same, a pair before a single fault; what was tried comes behind."""
    guide = Guide(SAME.faults)
    assert guide.best([SINGLE, WORKER, SAME]) == SAME
    guide.tries(SAME)
    assert guide.best([SAME, OTHER]) == OTHER, "the same two about two keys are another pair"
    guide.tries(OTHER)
    assert guide.best([SINGLE, WORKER, SAME, OTHER]) == WORKER


def test_what_was_tried_is_tried_again() -> None:
    """What was tried as often as the rest has its turn: it may do harm to another order, or the next time."""
    guide = Guide(SAME.faults)
    turns = []
    for _ in range(6):
        turns.append(guide.best([SAME, OTHER]))
        guide.tries(turns[-1])
    assert turns == [SAME, OTHER] * 3


def test_only_what_has_fired_is_reached() -> None:
    """A pair counts as reached when both of its faults fired in one drill."""
    guide = Guide(SAME.faults)
    guide.learn(fired(SAME, 1))
    assert guide.coverage == "1 of 2 kinds of faults, pairs: 0"
    guide.learn(fired(SAME, 2))
    assert guide.coverage == "2 of 2 kinds of faults, pairs: 1"
    assert guide.reached == set(features(SAME.faults))
