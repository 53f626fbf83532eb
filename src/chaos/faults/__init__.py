"""What can be done to an effect on the wire: one kind of fault a file, all of the same shape, registered by name.

A kind is a subclass of `FaultKind`. Its `act` is given the `Frame` (`chaos.wire.frame`): the effect, not delivered yet,
with everything behind it on its connection waiting. What it does not stop goes on when it returns. A schedule writes it
``point:name`` or ``point:name=value``.

Third parties add theirs by an entry point of the group ``onecharge.faults``, named like the kind::

    [project.entry-points."onecharge.faults"]
    truncate = "my_package.faults:Truncate"
"""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, ClassVar

from chaos.errors import ChaosError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.wire.frame import Frame
    from chaos.wire.steps import Effect

GROUP = "onecharge.faults"

_OURS = {
    "crash-before": "chaos.faults.crash_before:CrashBefore",
    "crash-after": "chaos.faults.crash_after:CrashAfter",
    "crash-late": "chaos.faults.crash_late:CrashLate",
    "lose-request": "chaos.faults.lose_request:LoseRequest",
    "lose-reply": "chaos.faults.lose_reply:LoseReply",
    "freeze": "chaos.faults.freeze:Freeze",
    "hold": "chaos.faults.hold:Hold",
    "repeat": "chaos.faults.repeat:Repeat",
    "delay": "chaos.faults.delay:Delay",
    "refuse": "chaos.faults.refuse:Refuse",
}


class FaultKind:
    """The shape of all kinds of faults.

    `values` are what may be written behind ``=``; the first is meant when nothing is. Where they cannot be listed,
    override `check`. `swept` are those that a sweep tries at each point, which has no time for long ones.
    """

    name: ClassVar[str]
    values: ClassVar[tuple[str, ...]] = ("",)
    swept: ClassVar[tuple[str, ...]] = ("",)

    def check(self, value: str) -> str:
        """`value`, or what is meant by an empty one.

        Raises:
            ChaosError: it means nothing to this kind.
        """
        if value and value not in self.values:
            can = ", ".join(f"{self.name}={one}" for one in self.values if one) or f"{self.name} alone"
            raise ChaosError(f"{self.name}={value}: expected {can}")
        return value or self.values[0]

    def impossible(self, effect: Effect) -> str:
        """Why this cannot be done to `effect`; an empty text if it can."""
        del effect
        return ""

    async def act(self, frame: Frame, value: str) -> None:
        """Do it. What a frame was not told to do has not happened: an `act` that does nothing has not fired."""
        raise NotImplementedError


def seconds(name: str, value: str, default: float) -> float:
    """A value that is a number of seconds.

    Raises:
        ChaosError: it is none.
    """
    try:
        number = float(value or default)
    except ValueError:
        number = -1.0
    if not 0 < number < float("inf"):
        raise ChaosError(f"{name}={value}: expected a number of seconds, such as {name}={default:g}")
    return number


@functools.cache
def registered() -> Mapping[str, str]:
    """All kinds by name, as ``module:class``: ours, and those of installed packages."""
    import importlib.metadata  # noqa: PLC0415 - it is slow to import, and a schedule is text until it is read

    theirs = {one.name: one.value for one in importlib.metadata.entry_points(group=GROUP)}
    return {**theirs, **_OURS}


@functools.cache
def kind(name: str) -> FaultKind:
    """The kind of that name.

    Raises:
        UnknownName: there is none.
    """
    if name not in registered():
        raise UnknownName("fault", name, sorted(registered()))
    module, _, attribute = registered()[name].partition(":")
    made = getattr(importlib.import_module(module), attribute)()
    if not isinstance(made, FaultKind):
        raise ChaosError(f"{registered()[name]}, registered as the fault {name!r}, is no chaos.faults.FaultKind")
    return made
