"""What is enough for a toxic or an outage to have had an effect, by what the wire has seen go over the link."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from chaos.outages import Outage
from chaos.toxics import Bad
from chaos.wire.detour import Standing, Traffic
from chaos.wire.messages import ArmedFault, Failed, Fired

if TYPE_CHECKING:
    from chaos.wire.messages import Event

NOTHING, SENT, HEARD, ENDED, LEFT = (
    Traffic(*counts) for counts in ((0, 0, 0, 0), (9, 0, 0, 0), (0, 9, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1))
)
ALL = (NOTHING, SENT, HEARD, ENDED, LEFT)
STOOD_S = 2.0
PORT = 5000


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
    [("kill", [*ALL]), ("restart", [*ALL]), ("full", [*ALL]), ("freeze", [SENT, ENDED])],
)
def test_outage(kind: str, enough: list[Traffic]) -> None:
    """A server that was killed has lost something; who only stood still, has if somebody wanted something."""
    harm = Outage.parse(kind, "")
    assert [went for went in ALL if went.met(harm, STOOD_S)] == enough


def said(action: str, value: str) -> Event:
    """What is said of a toxic whose link has its one connection ended before we are told that it is in place."""
    link = SimpleNamespace(listens=PORT, worker="near.0", traffic=[0, 0, 0, 0], bad=0)
    told: list[Event] = []

    async def order(what: str, *_: object, **__: object) -> Any:
        link.traffic[2] += what == "spoil"
        return SimpleNamespace(error="")

    async def finish() -> None:
        """Nobody tries again."""

    proxy: Any = SimpleNamespace(links=[link], standing=[], order=order, send=told.append)
    frame: Any = SimpleNamespace(connection=SimpleNamespace(member=SimpleNamespace(label="near.0")), finish=finish)
    text = f"near-depot:{action}={value}@near~0/http.post#1"
    fault = ArmedFault(text, "near", 0, "http.post", "", 1, action, value, (PORT,))
    asyncio.run(Standing(proxy, frame, 1, 0, fault).carry_out())
    [event] = told
    return event


@pytest.mark.parametrize(("action", "kind"), [("down", Fired), ("slow_close", Failed), ("latency", Failed)])
def test_what_ended_before_it_was_in_place(action: str, kind: type) -> None:
    """Whom a cut ends hears of it before we do, and has met it; what another toxic has not touched has not."""
    assert isinstance(said(action, "0.01"), kind)
