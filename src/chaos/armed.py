"""A schedule while it is armed: what arrives and where, which faults are still waited for, what happened."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from chaos.schedule import CRASH_BEFORE
from chaos.wire import messages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chaos.crew import Member
    from chaos.schedule import Fault, Schedule


@dataclass(frozen=True)
class Fired:
    """A fault that was carried out: at which point, in which worker, and how that ended."""

    fault: str
    worker: str
    ended: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.worker} {self.ended}"


class Armed:
    """A schedule while it is armed: what has arrived, what has fired, what happened."""

    def __init__(self, schedule: Schedule, unwired: Mapping[str, str] = MappingProxyType({})) -> None:
        self._unwired = unwired
        self.fired: list[Fired] = []
        self.events: list[tuple[float, str]] = []
        self.number = 0  # the wire's for this arming
        self.held = 0  # workers that were stopped for good and are not back
        self.failure: BaseException | None = None
        self.troubles: list[str] = []
        self.faults = dict(enumerate(schedule.faults))
        self._waiting = dict(self.faults)
        self._working: set[int] = set()
        self._sites: set[str] = set()
        self._open: dict[tuple[int, int], str] = {}  # effects that no server has replied to yet
        self._counts: Counter[tuple[str, int, str]] = Counter()

    @property
    def done(self) -> bool:
        """Every fault has fired and its worker is back."""
        return not self._waiting and not self.busy

    @property
    def busy(self) -> bool:
        """A fault is at work, or a worker on its way back."""
        return bool(self._working or self.held)

    def arrived(self, member: Member, site: str) -> Fault | None:
        """Count an arrival; the fault to carry out there, if any."""
        arrival = (member.worker.name, member.incarnation - member.base, site)
        self._counts[arrival] += 1
        self.note(f"{member.name}/{site}#{self._counts[arrival]}")
        self._sites.add(f"{member.worker.name}/{site}")
        for number, fault in list(self._waiting.items()):
            point = (fault.worker, fault.incarnation, fault.site)
            if point == arrival and not fault.key and fault.nth == self._counts[arrival]:
                self.over(number)
                if fault.action == CRASH_BEFORE:
                    return fault
                self.troubles.append(f"{fault} was reached at a checkpoint, where only {CRASH_BEFORE} can be done")
        return None

    def reached(self, number: int) -> None:
        """A fault of the wire has begun its work."""
        self._waiting.pop(number, None)
        self._working.add(number)

    def over(self, number: int) -> Fault | None:
        """A fault is waited for no longer, and has nothing more to do."""
        self._waiting.pop(number, None)
        self._working.discard(number)
        return self.faults.get(number)

    def seen(self, event: messages.Seen) -> None:
        """An effect is on the wire."""
        for point in event.points:
            worker, _, site = point.rpartition("#")[0].partition("/")
            self._sites.add(f"{worker.partition('~')[0]}/{site}")
        self._open[event.connection, event.effect] = event.points[0]
        self.note(" = ".join(event.points))

    def answered(self, event: messages.Answered) -> None:
        """Its server has replied."""
        point = self._open.pop((event.connection, event.effect), None)
        if point is not None:
            self.note(f"{point} {event.outcome}")

    def trouble(self, text: str) -> None:
        """Something that makes the verdict unknown, said once."""
        if text not in self.troubles:
            self.troubles.append(text)

    def note(self, text: str) -> None:
        """Something happened."""
        self.events.append((time.time(), text))

    def reasons(self) -> list[str]:
        """Why the run proves less than it should: recoveries that failed, faults that never fired and what was seen."""
        sites = ", ".join(sorted(self._sites))
        seen = f"arrivals were seen at {sites}" if sites else "no arrival was seen anywhere"
        missed = [f"{fault} did not fire: its point was not reached; {seen}" for fault in self._waiting.values()]
        services = {fault.site.partition(".")[0] for fault in self._waiting.values()}
        missed += [f"{self.faults[number]} was still at work" for number in sorted(self._working)]
        missed += [self._unwired[service] for service in sorted(services & self._unwired.keys())]
        return missed + self.troubles + ([f"a fault failed: {self.failure}"] if self.failure is not None else [])


def armed_fault(fault: Fault) -> messages.ArmedFault:
    """A fault of a schedule as the wire is told of it."""
    return messages.ArmedFault(
        str(fault), fault.worker, fault.incarnation, fault.site, fault.key, fault.nth, fault.action, fault.value
    )
