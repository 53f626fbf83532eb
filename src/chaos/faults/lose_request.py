"""``lose-request`` and ``lose-request=silent``: the request never arrives, and its connection is of no use any more.

The client sees a reset; or nothing at all, its socket staying open: code that recovers well from the one often hangs on
the other. What it sent before is answered first. The server sees the client go and rolls back what was open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class LoseRequest(FaultKind):
    """Drop the request and the connection."""

    name = "lose-request"
    values = ("reset", "silent")

    async def act(self, frame: Frame, value: str) -> None:
        """Let the earlier replies through, then lose."""
        await frame.earlier()
        await frame.lose(value)
