"""With Kafka's transactions each event is on the topic once, wherever the relay is broken; without, there are copies.

The topic is read by somebody who is given what is committed and keeps no inbox: each copy counts.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fix_relays import relayed
from tests.twins import forget_place, unfenced

if TYPE_CHECKING:
    from chaos import Session, Verdict
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

LEASE = {"RELAY_LEASE_S": "1"}
ONCE = partial(relayed, from_log=True, once=True, env={"EXACTLY_ONCE": "1"})
CRASHES = ("crash-before", "crash-after", "crash-late")
ZOMBIES = (
    "relay/kafka.produce[key-1]#1:freeze=held,4",
    "relay/kafka.produce[key-1]#1:freeze=delivered,4",
    "relay/kafka.commit_transaction#1:freeze=held,4",
)


def copied(verdict: Verdict) -> bool:
    """Whether the drill has found copies, and nothing else."""
    return {violation.invariant for violation in verdict.violations} == {"order per key"}


def test_every_point(onecharge: Session) -> None:
    """No event is lost, overtaken or copied where the relay is killed, at any point of it."""
    with onecharge.lanes(ONCE, 4) as lanes:  # a relay that recovers waits more than it works
        lanes.sweep(faults=CRASHES).require_holds()


@pytest.mark.parametrize("zombie", ZOMBIES)
def test_a_zombie_is_fenced(onecharge: Session, zombie: str) -> None:
    """A relay that wakes inside its transaction, when another has its slot, cannot end it."""
    with ONCE(onecharge, replicas=2, env={"EXACTLY_ONCE": "1", **LEASE}, grace=5.0) as system:
        system.drill(zombie).require_holds()


def test_without_transactions_there_are_copies(onecharge: Session) -> None:
    """The plain relay sends again what was not confirmed: at least once, for readers with an inbox."""
    with relayed(onecharge, from_log=True, once=True) as system:
        verdict = system.drill("relay/kafka.produce[key-1]#1:crash-after")
    assert copied(verdict), verdict.story(events=True)


@pytest.mark.parametrize(
    ("make", "schedule"),
    [
        (partial(ONCE, relay=forget_place.main), "relay/kafka.commit_transaction#1:crash-after"),
        (partial(ONCE, relay=forget_place.main), "relay/postgres.confirm#1:crash-before"),
        *((partial(ONCE, relay=unfenced.main, replicas=2, env=LEASE, grace=5.0), zombie) for zombie in ZOMBIES),
    ],
)
def test_transactions_alone_are_not_enough(onecharge: Session, make: Make, schedule: str) -> None:
    """A relay that does not read its place, or whose successor has another id, makes copies."""
    with make(onecharge) as system:
        verdict = system.drill(schedule)
    assert copied(verdict), verdict.story(events=True)
