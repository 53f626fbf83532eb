"""The workers of a running system: who arrives where, who is killed there, and how they come back.

Three threads meet here. The supervisor's hub hears a worker arrive and lets it go on or holds it. A recovery thread
kills what is held and starts its next incarnation; it is a thread of its own because a workload may be waiting for the
very worker that died. The drill's thread arms schedules and looks at what became of them. Whatever they share is
changed under the supervisor's lock.

What makes a kill count: the process that arrived is gone, by our SIGKILL and nothing else, and from the moment it was
held nothing more of that worker was let go on.
"""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import ChaosError, ProcessDied
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from chaos.lane import Lane, Worker
    from chaos.schedule import Fault, Schedule
    from chaos.workers.supervisor import Process

_START_S = 30.0
_DEATH_S = 1.0
_QUIET_S = 0.02
_RESTLESS_S = 0.2


@dataclass(frozen=True)
class Fired:
    """A fault that was carried out: at which point, in which worker, and how that ended."""

    fault: str
    worker: str
    ended: str

    def __str__(self) -> str:
        return f"{self.fault}: {self.worker} {self.ended}"


@dataclass
class Member:
    """One replica of a role: its present process and how many there have been before."""

    worker: Worker
    replica: int
    process: Process
    incarnation: int = 0
    base: int = 0  # the incarnation that a schedule calls 0
    held: int = 0  # faults that have stopped it and from which it is not back yet
    doomed: bool = False  # stopped at a point and not killed yet: nothing more of it counts or goes on
    told: bool = False  # a drill has said that this process ended by itself

    @property
    def name(self) -> str:
        """As in a point's name: role, replica if there are several, incarnation since the schedule was armed."""
        role = self.worker.name if self.worker.replicas == 1 else f"{self.worker.name}.{self.replica}"
        return f"{role}~{self.incarnation - self.base}"

    @property
    def died(self) -> bool:
        """Whether it ended by itself."""
        return self.process.exit is not None and not self.held


class Armed:
    """A schedule while it is armed: what has arrived, what has fired, what happened."""

    def __init__(self, schedule: Schedule) -> None:
        self.fired: list[Fired] = []
        self.events: list[tuple[float, str]] = []
        self.held = 0
        self.failure: BaseException | None = None
        self._waiting: list[Fault] = list(schedule.faults)
        self._counts: Counter[tuple[str, int, str]] = Counter()

    @property
    def done(self) -> bool:
        """Every fault has fired and its worker is back."""
        return not self._waiting and not self.held

    def arrived(self, member: Member, site: str) -> Fault | None:
        """Count an arrival; the fault to carry out there, if any."""
        arrival = (member.worker.name, member.incarnation - member.base, site)
        self._counts[arrival] += 1
        self.note(f"{member.name}/{site}#{self._counts[arrival]}")
        for fault in self._waiting:
            point = (fault.worker, fault.incarnation, fault.site)
            if point == arrival and fault.nth == self._counts[arrival]:
                self._waiting.remove(fault)
                return fault
        return None

    def note(self, text: str) -> None:
        """Something happened."""
        self.events.append((time.time(), text))

    def reasons(self) -> list[str]:
        """Why the run proves less than it should: recoveries that failed, faults that never fired and what was seen."""
        reached = sorted({f"{worker}/{site}" for worker, _, site in self._counts})
        seen = f"arrivals were seen at {', '.join(reached)}" if reached else "no arrival was seen anywhere"
        missed = [f"{fault} did not fire: its point was not reached; {seen}" for fault in self._waiting]
        return missed + ([f"a fault failed: {self.failure}"] if self.failure is not None else [])


class Crew:
    """See the module's docstring. Use it as a context manager; leaving it kills them all."""

    def __init__(self, lane: Lane, workers: Sequence[Worker]) -> None:
        self._last_arrival = time.monotonic()
        self._lane, self._workers = lane, tuple(workers)
        self._members: dict[str, Member] = {}
        self._armed: Armed | None = None
        self._orders: queue.SimpleQueue[tuple[Member, Fault, Armed, int] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._recovery = threading.Thread(target=self._recover, name="onecharge-recovery", daemon=True)
        self._recovery.start()
        self._lane.listen(self._arrive)
        try:
            for worker in self._workers:
                for replica in range(worker.replicas):
                    process = self._start(worker, replica, 0)
                    self._members[f"{worker.name}.{replica}"] = Member(worker, replica, process)
            for member in self._members.values():
                self._require_listening(member)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._orders.put(None)
        self._recovery.join()
        self._lane.listen(None)
        for member in self._members.values():
            member.process.kill()

    # -- what a drill asks ---------------------------------------------------------------------------------------

    @property
    def logs(self) -> tuple[Path, ...]:
        """The logs of all workers."""
        return tuple(member.process.log for member in self._members.values())

    def require_healthy(self) -> None:
        """Raise `ProcessDied` if a worker ended by itself, and whatever stopped a recovery."""
        if self._armed is not None and self._armed.failure is not None:
            raise self._armed.failure
        for member in self._members.values():
            if member.died:
                member.told = True
                raise ProcessDied(member.name, how=member.process.exit, log=member.process.log)

    def untold(self) -> list[str]:
        """Who ended by itself since a drill last looked, each said once."""
        found = []
        for member in self._members.values():
            if member.died and not member.told:
                member.told = True
                found.append(f"{member.name} {member.process.exit} by itself, after the last drill had been judged")
        return found

    def revive(self) -> None:
        """Start anew who ended by itself."""
        for member in self._members.values():
            if member.process.exit is not None:
                self._restart(member)

    def rest(self) -> None:
        """Return when no worker has arrived anywhere for a moment.

        A worker may be on its way to a checkpoint after what the last drill waited for was done; such an arrival must
        not be counted in the next. Some worker may arrive somewhere by the clock and never rest: that is no such one.
        """
        deadline = Deadline(_RESTLESS_S)
        while (left := self._last_arrival + _QUIET_S - time.monotonic()) > 0 and not deadline.passed:
            self._lane.supervisor.wait_for(lambda: False, Deadline(left))

    @contextlib.contextmanager
    def armed(self, schedule: Schedule) -> Iterator[Armed]:
        """Have the schedule's faults carried out at their points, for as long as this lasts."""
        armed = Armed(schedule)
        with self._lane.supervisor.changing():
            for member in self._members.values():
                member.base = member.incarnation
            self._armed = armed
        try:
            yield armed
        finally:
            with self._lane.supervisor.changing():
                self._armed = None
            # A worker held at its point is killed and brought back before anybody goes on.
            deadline = Deadline(_START_S)
            if not self._lane.supervisor.wait_for(lambda: not armed.held, deadline) and armed.failure is None:
                armed.failure = deadline.missed("a killed worker to come back", "not back", self.logs)

    # -- arrivals and recovery -----------------------------------------------------------------------------------

    def _arrive(self, label: str, site: str, pid: int) -> bool:
        """In the hub's thread: may the worker go on? If not, it is killed where it stands."""
        key, _, incarnation = label.rpartition("~")
        with self._lane.supervisor.changing():
            member = self._members.get(key)
            if member is None or incarnation != str(member.incarnation):
                return True  # a trusted worker, one that is just starting up, or the last words of a dead one
            if member.doomed:
                return False
            self._last_arrival = time.monotonic()
            armed = self._armed
            fault = armed.arrived(member, site) if armed is not None else None
            if armed is None or fault is None:
                return True
            member.held += 1
            member.doomed = True
            armed.held += 1
        self._orders.put((member, fault, armed, pid))
        return False

    def _recover(self) -> None:
        while (order := self._orders.get()) is not None:
            member, fault, armed, pid = order
            try:
                name, ended = member.name, member.process.kill()
                self._require_killed(member, pid)
                with self._lane.supervisor.changing():
                    armed.fired.append(Fired(str(fault), name, str(ended)))
                    armed.note(str(armed.fired[-1]))
                self._restart(member)
                armed.note(f"{member.name} started (pid {member.process.pid})")
            except BaseException as error:  # noqa: BLE001 - handed to the drill, which waits for it
                armed.failure = error
            with self._lane.supervisor.changing():
                member.held -= 1
                armed.held -= 1

    def _require_killed(self, member: Member, pid: int) -> None:
        """It was our signal that ended the process we started, and the one that arrived (`pid`) is gone with it."""
        if member.process.exit is None or member.process.exit.status != -signal.SIGKILL:
            raise ProcessDied(member.name, how=member.process.exit, log=member.process.log)
        try:
            wait_until(f"process {pid} to be gone", lambda: not _alive(pid), Deadline(_DEATH_S), every=0.001)
        except TimeoutError as error:
            msg = (
                f"{member.name} arrived from process {pid}, which was not killed with process {member.process.pid}: it "
                "left that process's group. A command line must `exec` the worker, not start it in the background."
            )
            raise ChaosError(msg) from error

    def _restart(self, member: Member) -> None:
        """The next incarnation, in place of one that has ended."""
        with self._lane.supervisor.changing():
            member.incarnation += 1  # before it starts, so that not one of its arrivals goes uncounted
            member.doomed = False
        member.process = self._start(member.worker, member.replica, member.incarnation)
        member.told = False
        self._require_listening(member)

    def _start(self, worker: Worker, replica: int, incarnation: int) -> Process:
        calls = [one.call for one in self._workers if one.call]
        modules = sorted({call.partition(":")[0] for call in calls})
        return self._lane.start(worker, replica=replica, incarnation=incarnation, preload=modules)

    def _require_listening(self, member: Member) -> None:
        """Wait until an HTTP worker accepts connections, or is about to be killed before it does."""
        if member.worker.http:
            deadline = Deadline(_START_S)
            self._lane.require_listening(
                member.worker, member.replica, member.process, deadline, unless=lambda: member.doomed
            )


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in {"Z", "X"}
