"""One order, one charge, with several replicas, whether they are static members of their group or dynamic ones.

Who is killed comes back at once as a static member. As a dynamic one it is missed first, and its partitions go to its
peers: there are rebalances in these drills, with work in flight elsewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_pipeline import thin_pipeline
from tests.thin import payment
from tests.twins import threaded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = pytest.mark.drills

SCHEDULES = [
    "payment/http.post#2:crash-after",
    "payment/postgres.commit#1:crash-before",
    "payment/kafka.offset_commit#1:crash-before",
]


@pytest.fixture(
    scope="module",
    params=[(consumer, dynamic) for consumer in (payment, threaded) for dynamic in (False, True)],
    ids=["plain-static", "plain-dynamic", "threaded-static", "threaded-dynamic"],
)
def replicated(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[System]:
    """The pipeline with two replicas of a correct payment consumer, on two partitions."""
    consumer, dynamic = request.param
    with thin_pipeline(onecharge, consumer.main, replicas=2, partitions=2, dynamic=dynamic) as system:
        yield system


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_replicas_charge_once(replicated: System, schedule: str) -> None:
    """An order is charged once, although one of two replicas dies over it and perhaps the other one takes it over."""
    verdict = replicated.drill(schedule)
    verdict.require_holds()
    assert len(verdict.fired) == 1
    assert [verdict.effects(key) for key in verdict.keys] == [1, 1, 1]
