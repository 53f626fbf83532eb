"""``crash-after``: the server has done it and replied; the worker is killed and never sees the reply."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class CrashAfter(FaultKind):
    """SIGKILL at the reply; for a request that has none, when it was delivered."""

    name = "crash-after"

    async def act(self, frame: Frame, value: str) -> None:
        """Deliver, await the reply, kill."""
        del value
        await frame.exchange()
        await frame.kill()
