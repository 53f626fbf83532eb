"""``crash-late=SECONDS``: the request is held while the worker's other connections go on, then the worker is killed.

It is killed as soon as one more effect of it went through, or after so many seconds (0.5 if none are given). This is
what catches a background commit that ran ahead of the work it speaks for: the effect is lost, its receipt is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind, seconds

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class CrashLate(FaultKind):
    """SIGKILL at the request, once something else of the worker has gone through."""

    name = "crash-late"
    swept = ("0.1",)

    def check(self, value: str) -> str:
        """A number of seconds."""
        return str(seconds(self.name, value, 0.5))

    async def act(self, frame: Frame, value: str) -> None:
        """Wait for another effect, kill."""
        ran_ahead = await frame.another_effect(float(value))
        frame.note("another effect went through" if ran_ahead else "no other effect went through")
        await frame.kill()
