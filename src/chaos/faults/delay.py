"""``delay=SECONDS``: the request is delivered so much later (0.1 if nothing is given)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chaos.faults import FaultKind, seconds

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class Delay(FaultKind):
    """Deliver later."""

    name = "delay"
    swept = ("0.05",)

    def check(self, value: str) -> str:
        """A number of seconds."""
        return str(seconds(self.name, value, 0.1))

    async def act(self, frame: Frame, value: str) -> None:
        """Wait, deliver."""
        await asyncio.sleep(float(value))
        await frame.deliver()
        frame.note(f"delivered {value} s later")
