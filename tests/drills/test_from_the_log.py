"""The CDC relay loses nothing where it dies between the log and the topic, or between the topic and its own word.

A confirmation has a number and no name, and how many there are depends on how rows come together; so the first of them
is broken by schedules, and no sweep.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.twins.systems import CONFIRM_ON_RECEIPT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = pytest.mark.drills

CONFIRM = ("crash-before", "crash-after", "crash-late", "lose-request", "lose-request=silent", "delay=0.05")


@pytest.fixture(scope="module")
def shop(onecharge: Session) -> Iterator[System]:
    """The pipeline with the CDC relay."""
    with CONFIRM_ON_RECEIPT.brother(onecharge) as system:
        yield system


def test_every_produce(shop: System) -> None:
    """Each accepted order is charged once, whatever becomes of the relay's produce requests."""
    sweep = shop.sweep(only=["relay/kafka.produce"])
    sweep.require_holds()
    assert sweep.broken == sweep.selected


@pytest.mark.parametrize("what", CONFIRM)
def test_the_first_confirmation(shop: System, what: str) -> None:
    """So it is where Postgres does not hear what is done, or hears it late."""
    shop.drill(f"relay/postgres.confirm#1:{what}").require_holds()


def test_a_confirmation_on_receipt_loses_orders(onecharge: Session) -> None:
    """A relay that confirms what it has received loses what it had not produced when it died."""
    with CONFIRM_ON_RECEIPT.system(onecharge) as system:
        for schedule in CONFIRM_ON_RECEIPT.schedules:
            verdict = system.drill(schedule)
            broken = {violation.invariant for violation in verdict.violations}
            assert broken == {CONFIRM_ON_RECEIPT.invariant}, verdict.story(events=True)
