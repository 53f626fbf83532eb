"""``lose-reply`` and ``lose-reply=silent``: the server has done it, and the client never learns of it.

The ambiguous outcome in its pure form: what the client's own code does then, decides. The client sees a reset; or
nothing at all, its socket staying open. What it sent before is answered first, nothing behind the request is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame
    from chaos.wire.steps import Effect


class LoseReply(FaultKind):
    """Drop the reply and the connection."""

    name = "lose-reply"
    values = ("reset", "silent")

    def impossible(self, effect: Effect) -> str:
        """Where no reply is sent, none can be lost."""
        return "" if effect.answered else f"{effect.site} asked for no reply, so none can be lost"

    async def act(self, frame: Frame, value: str) -> None:
        """Let the earlier replies through, deliver, await the reply, lose."""
        await frame.earlier()
        await frame.exchange()
        await frame.lose(value)
