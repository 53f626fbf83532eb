"""A flood of events that cannot be handled, three of ten: the bound of what is parked acts, and nothing is lost.

Parking fills up with orders that were given up. Then the group reads nothing more and says so, until their goods are
mended and they are sent back.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from chaos.errors import NotInTime
from chaos.waiting import Deadline, wait_until
from tests.fix_returns import MEND, goods, place, returns
from tests.twins import mendable, returning

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import Run, Session, Verdict

pytestmark = pytest.mark.drills

ORDERS, BROKEN_OF_TEN, LIMIT = 200, 3, 20
PATIENCE_S = 20.0
FULL = "select 1 from parked_orders where next_attempt_at is null offset %s"
ALARM = f"it is full with {LIMIT} events"


def flood(run: Run) -> None:
    """Place orders, and mend what is broken when as much was given up as there is room for."""
    skus = [goods(run, "broken"), goods(run, "good")]
    for number in range(ORDERS):
        place(run, skus[number % 10 >= BROKEN_OF_TEN])
    with contextlib.suppress(NotInTime):
        wait_until("parking to be full", lambda: bool(run.execute(FULL, LIMIT - 1)), Deadline(PATIENCE_S))
    run.execute(MEND, skus[0])


def flooded(session: Session, main: Callable[[], object]) -> tuple[Verdict, str]:
    """What the drill says, and the group's log."""
    with returns(session, inventory=main, workload=flood, limit=LIMIT) as system:
        verdict = system.drill()
    [log] = [file for file in verdict.logs if "inventory" in file.name]
    return verdict, log.read_text(encoding="utf-8")


def test_nothing_is_lost(onecharge: Session) -> None:
    """Parking is full, the group holds and gives alarm, and in the end every order has its goods."""
    verdict, said = flooded(onecharge, mendable.main)
    verdict.require_holds()
    assert ALARM in said


def test_who_drops_is_found(onecharge: Session) -> None:
    """A group that goes on when parking is full has lost what it could not park."""
    verdict, _ = flooded(onecharge, returning.drops_when_full)
    lost = [violation.key for violation in verdict.violations if violation.invariant == "accounted for"]
    assert lost, verdict.story(events=True)
