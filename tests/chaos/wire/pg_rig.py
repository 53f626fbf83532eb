"""A Postgres client behind the wire, and what the wire says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.wire import messages

if TYPE_CHECKING:
    from tests.chaos.wire.rig import Rig


def effects(rig: Rig) -> list[str]:
    """All effects, in order: kinds and outcomes."""
    rig.disarm()  # what was seen before is heard by now
    assert rig.all(messages.Noted) == []
    outcomes = {(one.connection, one.effect): one.outcome for one in rig.all(messages.Answered)}
    found = [(seen.points[0], outcomes.get((seen.connection, seen.effect), "unanswered")) for seen in seen_by(rig)]
    return [f"{point.partition('/postgres.')[2].partition('#')[0]} {outcome}" for point, outcome in found]


def seen_by(rig: Rig) -> list[messages.Seen]:
    """All effects."""
    return rig.all(messages.Seen)
