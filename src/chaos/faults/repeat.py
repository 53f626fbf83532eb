"""``repeat``: an HTTP request is delivered twice, as a proxy or a retrying library in between would.

The second copy goes over a connection of its own when the first was answered; the worker sees the first reply alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame
    from chaos.wire.steps import Effect


class Repeat(FaultKind):
    """Deliver twice."""

    name = "repeat"

    def impossible(self, effect: Effect) -> str:
        """Sessions of Postgres and Kafka number what they send: the same bytes again mean nothing there."""
        return "" if effect.site.startswith("http.") else f"{effect.site} cannot be repeated, only an HTTP request can"

    async def act(self, frame: Frame, value: str) -> None:
        """Deliver, await the reply, deliver again."""
        del value
        await frame.exchange()
        await frame.repeat()
