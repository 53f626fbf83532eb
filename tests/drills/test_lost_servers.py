"""One order, one charge, when Postgres or Kafka itself is killed, frozen, or started anew in the middle of the work.

Each comes back with its data. Everybody who uses it loses it, at the moment at which one of them has something to do
there, or has just done half of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_pipeline import require_away_and_back, thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = pytest.mark.drills

POINTS = (
    "api/postgres.commit[key-1]#1",
    "relay/kafka.produce[key-1]#1",
    "payment/http.post[key-1]#1",
    "payment/postgres.commit[key-1]#1",
    "payment/kafka.offset_commit[key-1]#1",
)
OUTAGES = ("kill", "kill=1", "freeze=1", "restart")


@pytest.fixture(scope="module")
def system(onecharge: Session) -> Iterator[System]:
    """With servers that may be broken."""
    with thin_pipeline(onecharge, own_servers=True) as system:
        yield system


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("outage", OUTAGES)
@pytest.mark.parametrize("server", ["postgres", "kafka"])
def test_one_charge(system: System, server: str, outage: str, point: str) -> None:
    """Whichever is lost, and wherever, each order is charged once, and the server was away and back before that."""
    verdict = system.drill(f"{server}:{outage}@{point}")
    require_away_and_back(verdict, server)


@pytest.mark.parametrize(
    "schedule", ["postgres:kill@relay/kafka.produce[key-1]#1", "kafka:kill@relay/kafka.produce[key-1]#1"]
)
def test_replication(onecharge: Session, schedule: str) -> None:
    """A relay that reads the log goes on where it was when Postgres was killed, or Kafka with events unsent."""
    with thin_pipeline(onecharge, from_log=True, own_servers=True) as system:
        system.drill(schedule).require_holds()
