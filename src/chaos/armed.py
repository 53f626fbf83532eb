"""A schedule while it is armed: what arrives and where, which faults are still waited for, what happened."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from chaos import history
from chaos.schedule import CRASH_BEFORE
from chaos.wire import messages

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from chaos.crew import Member
    from chaos.schedule import Fault, Schedule


@dataclass(frozen=True)
class Fired:
    """A fault that was carried out: at which point, in which worker, and how that ended.

    `alone`: it waited for another process to do the same, as a freeze or a hold does, and none did.
    """

    fault: str
    worker: str
    ended: str
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.fault}: {self.worker} {self.ended}"


class Armed:
    """A schedule while it is armed: what has arrived, what has fired, what happened.

    Points that are `certain` are those that every run comes to, if nothing is broken. They are told for schedules that
    were drawn, of which nobody knows what they bring about; who writes one down has to be told that it was not done.
    """

    def __init__(
        self, schedule: Schedule, unwired: Mapping[str, str] = MappingProxyType({}), certain: Collection[str] = ()
    ) -> None:
        self._unwired, self.certain = unwired, certain
        self.fired: list[Fired] = []
        self.unfit: list[str] = []  # faults that could never be done where they were asked for, and why
        self.history: list[history.Event] = [history.Began(time.time(), str(schedule))]
        self.number = 0  # the wire's for this arming
        self.away = 0  # servers that are, by a fault
        self.outages = 0  # how often one went away
        self.held = 0  # workers that were stopped for good and are not back
        self.failure: BaseException | None = None
        self.troubles: list[str] = []
        self.faults = dict(enumerate(schedule.faults))
        self._waiting = dict(self.faults)
        self._working: set[int] = set()
        self._standing: set[int] = set()  # bad links that stay so until nothing else is left to do
        self._begun: set[int] = set()  # faults that have fired, by number
        self._moves = 0
        self._sites: set[str] = set()
        self._open: dict[tuple[int, int], str] = {}  # effects of which nobody knows yet what became of them
        self._counts: Counter[tuple[str, int, str]] = Counter()

    @property
    def done(self) -> bool:
        """Every fault has fired and its worker is back, and nothing is in flight."""
        return not self._waiting and not self.busy

    @property
    def late(self) -> bool:
        """Only faults are waited for that come behind one that has fired."""
        first = min(tuple(self._begun), default=len(self.faults))
        return bool(self._waiting) and min(self._waiting, default=0) > first and not self.busy

    @property
    def moves(self) -> int:
        """Grows with all that a grace has to be given for: a fault, a worker that is back, an effect about a key."""
        return self._moves

    @property
    def busy(self) -> bool:
        """A fault is at work, a worker on its way back, or an effect on its way to its server or back."""
        return bool(self._working or self.held or self._open)

    def arrived(self, member: Member, generation: int, site: str) -> Fault | None:
        """Count an arrival at a checkpoint; the fault to carry out there, if any."""
        arrival = (member.worker.name, generation, site)
        self._counts[arrival] += 1
        nth = self._counts[arrival]
        point = f"{member.worker.name}~{generation}/{site}#{nth}"
        self.history.append(history.Arrived(time.time(), point, member.key))
        self._sites.add(f"{member.worker.name}/{site}")
        for number, fault in list(self._waiting.items()):
            if (fault.worker, fault.incarnation, fault.site) == arrival and not fault.key and fault.nth == nth:
                self.over(number)
                if fault.action == CRASH_BEFORE:
                    return fault
                self.spared(fault, f"it is a checkpoint, where only {CRASH_BEFORE} can be done", unfit=True)
        return None

    def reached(self, number: int) -> None:
        """A fault of the wire has begun its work."""
        self._waiting.pop(number, None)
        self._working.add(number)

    def stands(self, number: int) -> None:
        """It has done its work, and stands until nothing else is left to do."""
        self._working.discard(number)
        self._standing.add(number)

    @property
    def standing(self) -> list[Fault]:
        """What stands until nothing else is left to do."""
        return [self.faults[number] for number in sorted(self._standing)]

    def mend(self) -> None:
        """Nothing else is left to do: what stands is at work again until it has been healed."""
        self._working |= self._standing
        self._standing.clear()

    def over(self, number: int) -> Fault | None:
        """A fault is waited for no longer, and has nothing more to do."""
        self._waiting.pop(number, None)
        self._working.discard(number)
        self._standing.discard(number)
        return self.faults.get(number)

    def spoiled(self, fault: Fault, links: tuple[str, ...]) -> None:
        """Links are bad from here on."""
        self._moves += 1
        self.history.append(history.Spoiled(time.time(), str(fault), links))

    def healed(self, fault: Fault, links: tuple[str, ...], seconds: float) -> None:
        """They are whole again."""
        self._moves += 1
        self.history.append(history.Healed(time.time(), str(fault), links, seconds))

    def broke(self, fault: Fault, worker: str, what: str, *, alone: bool = False) -> None:
        """A fault was carried out."""
        self._moves += 1
        self._begun |= {number for number, one in self.faults.items() if one is fault}
        self.fired.append(Fired(str(fault), worker, what, alone))
        self.history.append(history.Broke(time.time(), str(fault), worker, what, alone))

    def spared(self, fault: Fault, reason: str, *, unfit: bool) -> None:
        """A fault was reached and not carried out."""
        self.history.append(history.Spared(time.time(), str(fault), reason, unfit))
        text = f"{fault} was reached and not carried out: {reason}"
        self.trouble(text)
        if unfit:
            self.unfit.append(text)

    def seen(self, event: messages.Seen) -> None:
        """An effect is on the wire."""
        for point in event.points:
            worker, _, site = point.rpartition("#")[0].partition("/")
            self._sites.add(f"{worker.partition('~')[0]}/{site}")
        self._open[event.connection, event.effect] = event.points[0]
        self._moves += len(event.points) > 1
        what = (event.connection, event.effect, event.evidence, event.stirs, event.repeats)
        self.history.append(history.Asked(event.at, event.points, event.worker, *what))

    def answered(self, event: messages.Answered) -> None:
        """Somebody knows what became of it."""
        point = self._open.pop((event.connection, event.effect), None)
        if point is not None:
            told = (event.outcome, event.connection, event.effect, event.evidence)
            self.history.append(history.Replied(event.at, point, *told))

    def closed(self, connection: int) -> None:
        """No more will be known of what a connection had open."""
        for number in [number for number in self._open if number[0] == connection]:
            del self._open[number]

    def started(self, worker: str, pid: int) -> None:
        """A killed worker is back."""
        self._moves += 1
        self.history.append(history.Started(time.time(), worker, pid))

    def blind(self, text: str) -> None:
        """What is in flight cannot be seen any more."""
        self._open.clear()
        self.trouble(text)

    def trouble(self, text: str) -> None:
        """Something that makes the verdict unknown, said once."""
        if text not in self.troubles:
            self.troubles.append(text)

    def note(self, text: str) -> None:
        """Something else happened."""
        self.history.append(history.Noted(time.time(), text))

    @property
    def not_reached(self) -> list[Fault]:
        """Faults whose points never came because one that fired has changed the course of things.

        It stands before them in the schedule, or nothing else can have kept their points from coming.
        """
        first = min(tuple(self._begun), default=len(self.faults))  # the hub's thread may be changing both
        waiting = list(self._waiting.items()) if first in self.faults else []
        return [fault for number, fault in waiting if number > first or fault.point in self.certain]

    def reasons(self) -> list[str]:
        """Why the run proves less than it should: recoveries that failed, faults that never fired and what was seen."""
        sites = ", ".join(sorted(self._sites))
        seen = f"arrivals were seen at {sites}" if sites else "no arrival was seen anywhere"
        missing = [fault for fault in list(self._waiting.values()) if fault not in self.not_reached]
        missed = [f"{fault} did not fire: its point was not reached; {seen}" for fault in missing]
        services = {fault.site.partition(".")[0] for fault in missing}
        missed += [f"{self.faults[number]} was still at work" for number in sorted(self._working | self._standing)]
        missed += [self._unwired[service] for service in sorted(services & self._unwired.keys())]
        return missed + self.troubles + ([f"a fault failed: {self.failure}"] if self.failure is not None else [])


def armed_fault(fault: Fault, links: tuple[int, ...] = ()) -> messages.ArmedFault:
    """A fault of a schedule as the wire is told of it; of what it calls a link, the ports."""
    point = (fault.worker, fault.incarnation, fault.site, fault.key, fault.nth)
    return messages.ArmedFault(str(fault), *point, fault.action, fault.value, links)
