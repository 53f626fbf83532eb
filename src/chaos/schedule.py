"""Faults and schedules: plain data, with a one-line text form both ways. That text is what replays a drill.

A fault names its point, ``worker~incarnation/site#n``, and what is done there::

    payment/payment.charged#2:crash-before          the second arrival of the payment worker at that checkpoint
    payment~1/payment.received#1:crash-before       the first arrival of its restarted self

Left out, the incarnation is 0 (the one that ran when the drill began) and n is 1. Arrivals are counted per role,
over its replicas, from the moment the schedule was armed, and anew for each incarnation. A schedule is a list of
faults separated by ``"; "``; an empty one breaks nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from chaos.errors import ChaosError, UnknownName

CRASH_BEFORE = "crash-before"
ACTIONS = (CRASH_BEFORE,)

_FAULT = re.compile(
    r"(?P<worker>[\w.-]+?)(~(?P<incarnation>\d+))?/(?P<site>[\w.-]+)(#(?P<nth>[1-9]\d*))?:(?P<action>[\w-]+)"
)


@dataclass(frozen=True)
class Fault:
    """What is done at one point, once."""

    worker: str
    site: str
    action: str = CRASH_BEFORE
    nth: int = 1
    incarnation: int = 0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """The fault that `text` names.

        Raises:
            ChaosError: it has not the form of a fault.
            UnknownName: nothing is called like its action.
        """
        match = _FAULT.fullmatch(text.strip())
        if match is None:
            msg = f"{text!r} is no fault: expected worker[~incarnation]/site[#n]:action"
            raise ChaosError(msg)
        if match["action"] not in ACTIONS:
            raise UnknownName("fault", match["action"], ACTIONS)
        nth, incarnation = int(match["nth"] or 1), int(match["incarnation"] or 0)
        return cls(match["worker"], match["site"], match["action"], nth, incarnation)

    @property
    def point(self) -> str:
        """The point's name, ``worker~incarnation/site#n``."""
        return f"{self.worker}~{self.incarnation}/{self.site}#{self.nth}"

    def __str__(self) -> str:
        return f"{self.point}:{self.action}"


@dataclass(frozen=True)
class Schedule:
    """An ordered list of faults."""

    faults: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """The schedule that `text` names; see `Fault.parse` for what is raised."""
        return cls(tuple(Fault.parse(part) for part in text.split(";")) if text else ())

    def __str__(self) -> str:
        return "; ".join(str(fault) for fault in self.faults)
