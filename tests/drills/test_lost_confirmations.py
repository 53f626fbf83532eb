"""A charge whose confirmation never came is found, and the order has one outcome, whoever is first to say so."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fix_lost import all_are_late, all_are_lost, lost_confirmations
from tests.twins import reconciling

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import Run, Session
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

LANES = 2
FAULTS = ("crash-before", "crash-after", "lose-request", "lose-reply", "freeze")
FIRST = "operator/kafka.produce[key-2]#1:freeze=held,1"  # the reconciler is, while the event is not sent back
LATE = "relay/kafka.produce[key-20]#1:freeze=held,2"  # the last order's event is on its way for a while


def test_every_point(onecharge: Session) -> None:
    """Nothing is charged, told or mailed twice, wherever the reconciler is broken, while the event comes after all."""
    with onecharge.lanes(lost_confirmations, LANES) as lanes:
        lanes.sweep(faults=FAULTS, only=["reconcile"]).require_holds()


@pytest.mark.parametrize(("workload", "schedule", "lost"), [(all_are_lost, "", 15), (all_are_late, LATE, 0)])
def test_at_the_same_moment(onecharge: Session, workload: Callable[[Run], object], schedule: str, lost: int) -> None:
    """Many events that come after all and a reconciler: each order has one outcome, and neither was idle."""
    with lost_confirmations(onecharge, workload=workload) as system:
        system.drill(schedule).require_holds()
        [(resolved,)] = system.lane.look("select count(*) from reconciliations")
        [(sent_back,)] = system.lane.look("select count(*) from replays")
    assert sent_back == lost
    assert bool(resolved) == bool(lost)


@pytest.mark.parametrize(
    ("make", "schedule", "invariant"),
    [
        (partial(lost_confirmations, reconciler=reconciling.charges), FIRST, "one effect per key"),
        (partial(lost_confirmations, reconciler=reconciling.guesses, workload=all_are_late), LATE, "settled up"),
    ],
    ids=["charges", "guesses"],
)
def test_twins_are_found(onecharge: Session, make: Make, schedule: str, invariant: str) -> None:
    """Who charges to be done with it charges twice, and who guesses fails orders that are to be charged."""
    with make(onecharge) as system:
        verdict = system.drill(schedule)
    assert invariant in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
