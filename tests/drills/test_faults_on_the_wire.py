"""One order, one charge, whatever is broken between the payment consumer and its servers, at each of its effects.

The consumer is not touched, and knows of none of this: where to break is seen on the wire. Its twin, which makes a new
key for each attempt, charges twice at exactly the points that lie between the charge and its record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_pipeline import thin_pipeline
from tests.twins import new_key_per_attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = pytest.mark.drills

SITES = ("http.post", "postgres.commit", "kafka.offset_commit")
FAULTS = ("crash-before", "crash-after", "lose-request", "lose-reply")
POINTS = [f"payment/{site}#1:{fault}" for site in SITES for fault in FAULTS]
OTHERS = [
    "payment/http.post#2:repeat",
    "payment/http.post#1:refuse=503",
    "payment/postgres.commit#1:refuse=40001",
    "payment/postgres.commit#2:freeze=held,0.2",
    "payment/kafka.offset_commit#1:hold=0.2",
    "payment/postgres.commit#1:crash-late=0.2",
    "payment/http.post#3:delay=0.1",
    "relay/kafka.produce#1:lose-reply",
    "relay/postgres.write#1:crash-after",
    "api/postgres.commit#2:lose-reply",
    "payment/http.post#1:crash-after; payment~1/postgres.commit#1:crash-before",
]
DOUBLE = {
    "payment/http.post#1:crash-after",
    "payment/http.post#1:lose-reply",
    "payment/postgres.commit#1:crash-before",
    "payment/postgres.commit#1:lose-request",
}


@pytest.fixture(scope="module")
def twin(onecharge: Session) -> Iterator[System]:
    """A consumer that makes a new key for each attempt."""
    with thin_pipeline(onecharge, new_key_per_attempt.main) as system:
        yield system


@pytest.mark.parametrize("schedule", [*POINTS, *OTHERS])
def test_one_charge(orders: System, schedule: str) -> None:
    """Each order is charged once, and every fault fired."""
    verdict = orders.drill(schedule)
    verdict.require_holds()
    assert [fired.fault for fired in verdict.fired] == [str(fault) for fault in verdict.schedule.faults]
    assert [verdict.effects(key) for key in verdict.keys] == [1, 1, 1]


@pytest.mark.parametrize("schedule", POINTS)
def test_double_charge_is_found_where_it_can_happen(twin: System, schedule: str) -> None:
    """The twin charges twice at the four points where its first charge is forgotten, and nowhere else."""
    verdict = twin.drill(schedule)
    assert verdict.fired, verdict.story(events=True)
    assert verdict.status == ("violated" if schedule in DOUBLE else "holds"), verdict.story(events=True)
