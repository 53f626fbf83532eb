"""One order, one charge, where the file system of Postgres or of Kafka is full for a while, which ends the server."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.fix_pipeline import require_away_and_back, thin_pipeline
from tests.twins import new_key_per_attempt

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = [
    pytest.mark.drills,
    pytest.mark.skipif(os.getuid() != 0, reason="a file system of one's own takes the right to mount"),
]

ROOM_MB = 200
POINTS = (
    "api/postgres.commit[key-1]#1",
    "relay/kafka.produce[key-1]#1",
    "payment/postgres.commit[key-1]#1",
    "payment/kafka.offset_commit[key-1]#1",
)


@pytest.fixture(scope="module")
def system(onecharge: Session) -> Iterator[System]:
    """With servers whose data is in small file systems."""
    with thin_pipeline(onecharge, own_servers=True, room_mb=ROOM_MB) as system:
        yield system


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("server", ["postgres", "kafka"])
def test_one_charge(system: System, server: str, point: str) -> None:
    """Postgres has no room for its log, or Kafka for a topic; with room again each order is charged once."""
    verdict = system.drill(f"{server}:full=0.5@{point}")
    require_away_and_back(verdict, server)


def test_double_charge_is_found(onecharge: Session) -> None:
    """A consumer that is not recognised when it asks again charges twice what there was no room to note."""
    with thin_pipeline(onecharge, new_key_per_attempt.main, own_servers=True, room_mb=ROOM_MB) as system:
        verdict = system.drill("postgres:full=0.5@payment/postgres.commit[key-1]#1")
    assert "one effect per key" in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
