"""Every event reaches the topic, and each order's in sequence, whichever relay carries it and wherever that is broken.

What the workload is like: events committed one after the other and together, one that commits late with a low id, one
that is committed while the relay has the event before it in its hands.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fix_relays import relayed
from tests.twins import cursor

if TYPE_CHECKING:
    from chaos import Session
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

FROM_LOG = partial(relayed, from_log=True)
LANES = 4  # a relay that recovers waits more than it works
CRASHES = ("crash-before", "crash-after")


@pytest.mark.parametrize("make", [relayed, partial(relayed, replicas=2), FROM_LOG], ids=["polling", "two", "cdc"])
def test_every_point(onecharge: Session, make: Make) -> None:
    """Nothing is lost or overtaken at any point of the polling relay, of two of them side by side, of the CDC relay."""
    with onecharge.lanes(make, LANES) as lanes:
        lanes.sweep().require_holds()


def test_every_recovery_from_the_log(onecharge: Session) -> None:
    """Nor where the CDC relay is killed once more while it recovers."""
    with onecharge.lanes(FROM_LOG, LANES) as lanes:
        lanes.sweep(depth=2, faults=CRASHES, only=["relay/kafka.produce"]).require_holds()


@pytest.mark.parametrize("effect", ["kafka.produce[key-1]#1", "postgres.write[key-1]#1"])
@pytest.mark.parametrize("where", ["held", "delivered"])
def test_a_zombie(onecharge: Session, effect: str, where: str) -> None:
    """A relay that is stopped, loses its shards to another, and wakes does no harm by what it sends or marks."""
    with relayed(onecharge, replicas=2, env={"RELAY_LEASE_S": "0.4"}, grace=3.0) as system:
        verdict = system.drill(f"relay/{effect}:freeze={where},3")
        verdict.require_holds()
        # It was stopped for long enough: another has had the same effect, or waits for its mark and has sent a copy.
        copied = any(not record.effect for record in system.invariants[0].ledger.of(verdict.keys[0]))
        assert copied or "another had taken over" in str(verdict.fired[0]), verdict.story(events=True)


def test_a_cursor_loses_what_commits_late(onecharge: Session) -> None:
    """A relay that reads on behind the last id it has published loses an event without any fault."""
    with relayed(onecharge, cursor.main, whole=False) as system:
        verdict = system.drill("")
    assert [violation.invariant for violation in verdict.violations] == ["all events"], verdict.story(events=True)
