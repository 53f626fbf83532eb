"""One order, one charge, when payment loses one of its services alone for longer than anybody's default patience.

Half-open: nothing is refused or reset, nothing comes. The pipeline is as patient as it is where nothing else is set.
The gateway may be silent for 3 s, Kafka misses a member after 10 s, and Postgres ends a transaction in which nobody has
done anything for 15 s.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from chaos.history import Healed, Spoiled
from tests.fix_pipeline import thin_pipeline
from tests.fix_shop import shop
from tests.twins import new_key_per_attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = pytest.mark.drills

AT = "@payment/http.post[key-1]#1"
SLOW = f"payment-gateway:latency=31,latency_ms:30000{AT}"


@pytest.fixture(scope="module")
def system(onecharge: Session) -> Iterator[System]:
    """The shop."""
    with shop(onecharge, within=90) as system:
        yield system


@pytest.mark.parametrize(
    ("schedule", "seconds"),
    [
        (f"payment-gateway:timeout=4,both{AT}", 4),
        (f"payment-kafka:timeout=11,both{AT}", 11),
        (f"payment-postgres:timeout=16,both{AT}", 16),
        (SLOW, 31),
    ],
    ids=["gateway", "kafka", "postgres", "slow gateway"],
)
def test_one_charge(system: System, schedule: str, seconds: float) -> None:
    """Whatever was given up meanwhile, each order is charged once, mailed once and has its goods."""
    verdict = system.drill(schedule)
    verdict.require_holds()
    [spoiled] = [event for event in verdict.history if isinstance(event, Spoiled)]
    [healed] = [event for event in verdict.history if isinstance(event, Healed)]
    assert healed.at - spoiled.at >= seconds


def test_twin_is_found(onecharge: Session) -> None:
    """Who thinks that what was not answered has not happened charges again, as soon as it gives up."""
    schedule = f"payment-gateway:latency=4,latency_ms:30000{AT}"
    twin, brother = partial(thin_pipeline, consumer=new_key_per_attempt.main), thin_pipeline
    for make, status in ((twin, "violated"), (brother, "holds")):
        with make(onecharge) as system:
            assert system.drill(schedule).status == status
