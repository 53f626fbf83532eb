"""Every event is handled once, or is a dead letter, wherever parking, burial and return are broken."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fix_returns import dynamic_returns, returns
from tests.twins import returning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos import Session
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

LANES = 4  # an order that is parked waits more than it works
OURS = ("inventory", "retry", "operator")
CRASHES = ("crash-before", "crash-after")
BEHIND = 8.0  # seconds, after which what is lost has not come; far more than what is not lost takes


@pytest.mark.parametrize(("make", "only"), [(returns, OURS), (dynamic_returns, OURS[:1])], ids=["static", "dynamic"])
def test_every_point(onecharge: Session, make: Make, only: Sequence[str]) -> None:
    """Neither the group, nor its retry worker, nor who sends letters back loses, doubles or overtakes anything.

    These are two faults; `onecharge sweep tests.fix_returns:returns` has all, and takes minutes.
    """
    with onecharge.lanes(make, LANES) as lanes:
        lanes.sweep(faults=CRASHES, only=only).require_holds()


@pytest.mark.parametrize(
    ("make", "schedule", "invariant"),
    [
        (partial(returns, inventory=returning.overtaking), "", "stock balanced"),
        (
            partial(returns, inventory=returning.offset_before_burial),
            "inventory/kafka.offset_commit[key-3]#1:crash-after",
            "accounted for",
        ),
        (
            partial(returns, retries=returning.mark_before_burial, within=BEHIND),
            "retry/postgres.commit[key-2]#1:crash-after",
            "noted is done",
        ),
        (
            partial(returns, operator=returning.note_before_sending, within=BEHIND),
            "operator/postgres.write#1:crash-after",
            "noted is done",
        ),
    ],
    ids=["overtaking", "offset before burial", "mark before burial", "note before sending"],
)
def test_twins_are_found(onecharge: Session, make: Make, schedule: str, invariant: str) -> None:
    """Each step that is taken too early loses a letter where the worker dies behind it, or has an order overtaken."""
    with make(onecharge) as system:
        verdict = system.drill(schedule)
    assert invariant in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
