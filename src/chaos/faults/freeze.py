"""``freeze=held`` and ``freeze=delivered``: SIGSTOP at the request, SIGCONT when somebody else has taken over.

The zombie: a process that was out for so long that its work was given to another, and that goes on where it was. It is
thawed when another process of its role had the same effect, about the same key, or after so many seconds
(``freeze=held,5``; 2 if none are given): a worker that is frozen inside a transaction may be blocking the very one that
takes over. The request is delivered while it is frozen, or waits until the thaw.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.faults import FaultKind, seconds

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


class Freeze(FaultKind):
    """SIGSTOP until a successor was seen at work."""

    name = "freeze"
    values = ("held", "delivered")
    swept = ("held,0.1", "delivered,0.1")

    def check(self, value: str) -> str:
        """``held`` or ``delivered``, and for how long at most."""
        how, _, limit = value.partition(",")
        if (how or self.values[0]) not in self.values:
            raise ChaosError(f"{self.name}={value}: expected held or delivered, and perhaps a limit: freeze=held,2")
        return f"{how or self.values[0]},{seconds(self.name, limit, 2.0)}"

    async def act(self, frame: Frame, value: str) -> None:
        """Freeze, wait, thaw."""
        how, _, limit = value.partition(",")
        await frame.freeze()
        try:
            if how == "delivered":
                await frame.deliver()
            taken = await frame.successor(float(limit))
        finally:
            await frame.thaw()
        frame.note(f"thawed {'when another had taken over' if taken else f'after {limit} s'}")
