"""``crash-before``: the worker is killed while its request waits; neither it nor anything after it arrives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class CrashBefore(FaultKind):
    """SIGKILL at the request."""

    name = "crash-before"

    async def act(self, frame: Frame, value: str) -> None:
        """Kill."""
        del value
        await frame.kill()
