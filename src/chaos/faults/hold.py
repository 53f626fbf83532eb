"""``hold=SECONDS``: the request is held back until a successor's has gone through, then delivered.

A late packet: the sender is alive, its connection stalls, and what it sent arrives after somebody else has had the same
effect, about the same key, or after so many seconds (1 if none are given). A held COMMIT keeps its locks, and may be
keeping the very successor waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.faults import FaultKind, seconds

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class Hold(FaultKind):
    """Deliver late."""

    name = "hold"
    swept = ("0.1",)

    def check(self, value: str) -> str:
        """A number of seconds."""
        return str(seconds(self.name, value, 1.0))

    async def act(self, frame: Frame, value: str) -> None:
        """Wait for a successor's effect, deliver."""
        overtaken = await frame.successor(float(value))
        await frame.deliver()
        frame.note(f"delivered {'after another of its kind' if overtaken else f'after {value} s'}")
