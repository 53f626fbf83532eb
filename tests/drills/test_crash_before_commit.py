"""One order, one charge, although the payment consumer is killed after the gateway charged and before its commit.

The gateway cannot know that its reply was lost with the consumer: it is asked again and must recognise the request.
Its own log shows both: two requests, one charge. Each defence is then taken away, in a twin, and the drill must find
what it was for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos import Undecided
from tests.fix_pipeline import thin_pipeline
from tests.thin import payment
from tests.twins import new_key_per_attempt, no_inbox_no_key, offset_before_effect

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import Session, System

pytestmark = pytest.mark.drills

CHARGED = "payment/payment.charged#{n}:crash-before"


@pytest.mark.parametrize("nth", [1, 2, 3])
def test_crash_before_commit(orders: System, nth: int) -> None:
    """An order whose consumer died between charge and commit is asked for twice and charged once; others once."""
    verdict = orders.drill(CHARGED.format(n=nth))

    verdict.require_holds()
    assert [fired.fault for fired in verdict.fired] == [f"payment~0/payment.charged#{nth}:crash-before"]
    assert sorted(verdict.requests(key) for key in verdict.keys) == [1, 1, 2]
    assert [verdict.effects(key) for key in verdict.keys] == [1, 1, 1]


@pytest.mark.parametrize(
    "twin", [new_key_per_attempt, no_inbox_no_key], ids=lambda twin: twin.__name__.rpartition(".")[2]
)
def test_double_charge_is_found(onecharge: Session, twin: Callable[..., object]) -> None:
    """A consumer whose request is not recognised when repeated charges twice, and the drill says which order."""
    with thin_pipeline(onecharge, twin.main) as system:  # type: ignore[attr-defined]
        verdict = system.drill(CHARGED.format(n=1))

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert violation.invariant == "one effect per key"
    assert verdict.effects(violation.key) == 2
    assert verdict.requests(violation.key) == 2


def test_lost_charge_is_found(onecharge: Session) -> None:
    """A consumer that commits its offset before it works loses an order, and the drill says which."""
    with thin_pipeline(onecharge, offset_before_effect.main) as system:
        verdict = system.drill("payment/payment.offset_committed#1:crash-before")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert violation.invariant == "nothing lost"
    assert verdict.effects(violation.key) == 0


@pytest.mark.parametrize("consumer", [payment.main], ids=["correct"])
def test_fault_that_does_not_fire_is_unknown(onecharge: Session, consumer: Callable[[], object]) -> None:
    """A drill whose fault never fired proves nothing, and says which point was not reached."""
    with thin_pipeline(onecharge, consumer, grace=0.1) as system:
        verdict = system.drill("payment/payment.chraged#1:crash-before")

    assert verdict.status == "unknown"
    assert not verdict.fired
    assert "payment~0/payment.chraged#1:crash-before did not fire" in verdict.reasons[0]
    with pytest.raises(Undecided):
        verdict.require_holds()
