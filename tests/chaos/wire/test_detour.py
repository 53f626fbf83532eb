"""What is enough for a toxic or an outage to have had an effect, by what the wire has seen go over the link."""

from __future__ import annotations

import pytest

from chaos.outages import Outage
from chaos.toxics import Bad
from chaos.wire.detour import Traffic

NOTHING, SENT, HEARD, ENDED, LEFT = (
    Traffic(*counts) for counts in ((0, 0, 0, 0), (9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
)
ALL = (NOTHING, SENT, HEARD, ENDED, LEFT)
STOOD_S = 2.0


@pytest.mark.parametrize(
    ("kind", "value", "enough"),
    [
        ("down", "", [ENDED]),
        ("slow_close", "both", [ENDED, LEFT]),
        ("latency", "requests", [SENT]),
        ("timeout", "both", [SENT]),
        ("latency", "", [HEARD, ENDED]),
        ("latency", "latency_ms:1999", [HEARD, ENDED]),
        ("latency", "latency_ms:2000", [SENT, HEARD, ENDED]),  # none of it comes while it stands
        ("bandwidth", "", [HEARD, ENDED]),
        ("slicer", "", [HEARD, ENDED]),
        ("timeout", "", [SENT, HEARD, ENDED]),
        ("reset_peer", "", [SENT, HEARD, ENDED]),
        ("limit_data", "", [SENT, HEARD, ENDED]),
    ],
)
def test_toxic(kind: str, value: str, enough: list[Traffic]) -> None:
    """A toxic needs what it could be about, in its direction, and nothing else is enough."""
    harm = Bad.parse(kind, value)
    assert [went for went in ALL if went.met(harm, STOOD_S)] == enough


@pytest.mark.parametrize(
    ("kind", "enough"),
    [("kill", [*ALL]), ("restart", [*ALL]), ("freeze", [SENT, ENDED])],
)
def test_outage(kind: str, enough: list[Traffic]) -> None:
    """A server that was killed has lost something; who only stood still, has if somebody wanted something."""
    harm = Outage.parse(kind, "")
    assert [went for went in ALL if went.met(harm, STOOD_S)] == enough
