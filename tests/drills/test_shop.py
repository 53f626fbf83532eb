"""One order, one charge, one refund if it fails, one reservation, one mail, wherever a group is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_shop import dynamic_shop, shop
from tests.twins import payment_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos import Session
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

LANES = 2  # each has ten workers, and our broker links for 32; others are kept for the whole run
GROUPS = ("payment", "inventory", "notification")
CRASHES = ("crash-before", "crash-after")
CHARGE = "payment/http.post[key-1]#1"


@pytest.mark.parametrize(
    ("make", "faults", "only"),
    [
        (shop, CRASHES, GROUPS),
        (shop, ["lose-reply"], ["payment/http.post"]),
        (dynamic_shop, CRASHES, GROUPS[:1]),
    ],
    ids=["static", "lost replies", "dynamic"],
)
def test_every_point(onecharge: Session, make: Make, faults: Sequence[str], only: Sequence[str]) -> None:
    """An order that is confirmed was charged once, one that has failed was given back what it was charged.

    These are a few faults; `onecharge sweep tests.fix_shop:shop` (or `:dynamic_shop`) has all, in a quarter of an hour.
    """
    with onecharge.lanes(make, LANES) as lanes:
        lanes.sweep(faults=faults, only=only).require_holds()


def test_every_recovery_of_payment(onecharge: Session) -> None:
    """Nor is anything else the case where a member of the payment group is killed again while it recovers."""
    with onecharge.lanes(shop, LANES) as lanes:
        lanes.sweep(depth=2, faults=CRASHES[:1], only=["payment/http.post"]).require_holds()


@pytest.mark.parametrize(
    ("main", "schedule", "invariant"),
    [
        (payment_twins.key_per_attempt, f"{CHARGE}:crash-after", "one effect per key"),
        (payment_twins.key_per_attempt, f"{CHARGE}:lose-reply", "one effect per key"),
        (payment_twins.key_per_attempt, "payment/postgres.commit[key-1]#1:crash-before", "one effect per key"),
        (payment_twins.refund_on_time_out, f"{CHARGE}:lose-reply", "settled up"),
        (payment_twins.forgets_refunds, "", "settled up"),
        (payment_twins.offset_first, f"{CHARGE}:crash-before", "settled up"),
    ],
)
def test_twins_are_found(onecharge: Session, main: Callable[[], object], schedule: str, invariant: str) -> None:
    """Each of them charges twice, not at all, or keeps what it should give back."""
    with shop(onecharge, payment=main, within=15.0) as system:
        verdict = system.drill(schedule)
    assert invariant in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
