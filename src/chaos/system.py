"""A system under test: workers in a lane, and what it means for them to be done and to be right.

Workers are started when the system is entered and kept running from drill to drill; only those that a schedule kills
are started anew. Recovery is a thread of its own, because a workload may be waiting for the very worker that died.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.drill import Fired, Verdict, judge, run_drill
from chaos.errors import ChaosError, ProcessDied, UnknownName, Violated
from chaos.schedule import Fault, Schedule
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from chaos.conditions import Condition
    from chaos.drill import Run
    from chaos.invariants import Invariant
    from chaos.lane import Lane, Worker
    from chaos.workers.supervisor import Process

_START_S = 30.0


@dataclass
class _Member:
    """One replica of a role: its present process and how many there have been before."""

    worker: Worker
    replica: int
    process: Process
    incarnation: int = 0
    base: int = 0  # the incarnation that a schedule calls 0
    held: int = 0  # faults that have stopped it and from which it is not back yet

    @property
    def name(self) -> str:
        role = self.worker.name if self.worker.replicas == 1 else f"{self.worker.name}.{self.replica}"
        return f"{role}~{self.incarnation - self.base}"


class System:
    """A lane's workers, a workload, conditions for being settled, and invariants.

    Args:
        lane: where the workers run.
        workers: the roles, started in this order.
        workload: called once per drill with a `Run`; it must have something accepted.
        settled: conditions that all hold when nothing is left to do.
        invariants: what must be true of the ledgers.
        grace: seconds to wait, once settled, for what no condition sees, before something is called lost.
        within: seconds a drill may take.
    """

    def __init__(
        self,
        lane: Lane,
        *,
        workers: Sequence[Worker],
        workload: Callable[[Run], object],
        settled: Sequence[Condition],
        invariants: Sequence[Invariant],
        grace: float = 1.0,
        within: float = 30.0,
    ) -> None:
        self.lane, self.workers, self.workload = lane, tuple(workers), workload
        self.settled, self.invariants = tuple(settled), tuple(invariants)
        self.grace, self.within = grace, within
        self.arrivals = 0
        self.on_verdict: Callable[[Verdict], None] = lane.on_verdict
        self._members: dict[str, _Member] = {}
        self._keys: list[str] = []
        self._armed: Armed | None = None
        self._recoveries: queue.SimpleQueue[tuple[_Member, Fault, Armed] | None] = queue.SimpleQueue()

    def __enter__(self) -> Self:
        self._recovery = threading.Thread(target=self._recover, name="onecharge-recovery", daemon=True)
        self._recovery.start()
        self.lane.listen(self._arrive)
        try:
            for worker in self.workers:
                for replica in range(worker.replicas):
                    process = self._start(worker, replica, 0)
                    self._members[f"{worker.name}.{replica}"] = _Member(worker, replica, process)
            for member in self._members.values():
                if member.worker.http:
                    self.lane.require_listening(member.worker, member.replica, member.process, Deadline(_START_S))
        except BaseException:
            self.__exit__(ChaosError)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        late = [] if kind else judge(self, self._keys, settled=True)
        self._recoveries.put(None)
        self._recovery.join()
        self.lane.listen(None)
        for member in self._members.values():
            member.process.kill()
        if late:
            verdict = Verdict(Schedule(), tuple({one.ledger for one in self.invariants}), tuple(self._keys))
            verdict.violations = late
            verdict.events.append("found at the end of the run, after its drill had been judged")
            raise Violated(verdict)

    def drill(self, schedule: str | Schedule = "") -> Verdict:
        """Run the workload under a schedule and judge it.

        Raises:
            UnknownName: the schedule names a worker that this system does not have.
        """
        plan = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        for fault in plan.faults:
            if fault.worker not in {worker.name for worker in self.workers}:
                raise UnknownName("worker", fault.worker, [worker.name for worker in self.workers])
        self._revive()
        verdict = run_drill(self, plan)
        if verdict.status == "holds":  # each key is judged once more when the system is left
            self._keys += verdict.keys
        self.on_verdict(verdict)
        return verdict

    # -- what a drill asks ---------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where the system's HTTP worker is spoken to."""
        for worker in self.workers:
            if worker.http:
                return f"http://{self.lane.port(worker, 0).address}"
        msg = "no worker of this system serves HTTP: make one with Worker(…, http=True)"
        raise ChaosError(msg)

    @property
    def all_fired(self) -> bool:
        """Whether every fault of the schedule was carried out and its worker is back."""
        return self._armed is None or self._armed.done

    def outstanding(self) -> str:
        """What is left to do, in words; an empty text when the system has settled."""
        for condition in self.settled:
            left = condition.outstanding(self.lane)
            if left:
                return left
        return ""

    def require_healthy(self) -> None:
        """Raise `ProcessDied` if a worker ended by itself, and whatever stopped a recovery."""
        if self._armed is not None and self._armed.failure is not None:
            raise self._armed.failure
        for member in self._members.values():
            if member.process.exit is not None and not member.held:
                raise ProcessDied(member.name, how=member.process.exit, log=member.process.log)

    def logs(self) -> list[Path]:
        """The logs of all workers."""
        return [member.process.log for member in self._members.values()]

    @contextlib.contextmanager
    def armed(self, schedule: Schedule) -> Iterator[Armed]:
        """Have the schedule's faults carried out at their points, for as long as this lasts."""
        for member in self._members.values():
            member.base = member.incarnation
        armed = Armed(schedule, self)
        with self.lane.supervisor.changing():
            self._armed = armed
        try:
            yield armed
        finally:
            with self.lane.supervisor.changing():
                self._armed = None
            # A worker held at its point is killed and brought back before anybody goes on.
            self.lane.supervisor.wait_for(lambda: not armed.held or armed.failure is not None, Deadline(_START_S))

    # -- arrivals and recovery -----------------------------------------------------------------------------------

    def _arrive(self, label: str, site: str) -> bool:
        """In the hub's thread: may the worker go on? If not, it is killed where it stands."""
        key, _, incarnation = label.rpartition("~")
        with self.lane.supervisor.changing():
            member = self._members.get(key)
            if member is None or int(incarnation) != member.incarnation:
                return True  # a trusted worker, one that is just starting up, or the last words of a dead one
            self.arrivals += 1
            armed = self._armed
            fault = armed.arrived(member, site) if armed is not None else None
            if armed is None or fault is None:
                return True
            member.held += 1
            armed.held += 1
        self._recoveries.put((member, fault, armed))
        return False

    def _recover(self) -> None:
        while (order := self._recoveries.get()) is not None:
            member, fault, armed = order
            try:
                name, ended = member.name, member.process.kill()
                with self.lane.supervisor.changing():
                    armed.fired.append(Fired(str(fault), name, str(ended)))
                    armed.note(str(armed.fired[-1]))
                self._restart(member)
                armed.note(f"{member.name} started (pid {member.process.pid})")
            except BaseException as error:  # noqa: BLE001 - handed to the drill, which waits for it
                armed.failure = error
            with self.lane.supervisor.changing():
                member.held -= 1
                armed.held -= 1

    def _restart(self, member: _Member) -> None:
        """The next incarnation, in place of one that has ended."""
        with self.lane.supervisor.changing():
            member.incarnation += 1  # before it starts, so that not one of its arrivals goes uncounted
        member.process = self._start(member.worker, member.replica, member.incarnation)
        if member.worker.http:
            self.lane.require_listening(member.worker, member.replica, member.process, Deadline(_START_S))

    def _start(self, worker: Worker, replica: int, incarnation: int) -> Process:
        calls = [one.call for one in self.workers if one.call]
        modules = sorted({call.partition(":")[0] for call in calls})
        return self.lane.start(worker, replica=replica, incarnation=incarnation, preload=modules)

    def _revive(self) -> None:
        """Start what ended by itself in an earlier drill, which has said so."""
        for member in self._members.values():
            if member.process.exit is not None:
                self._restart(member)


class Armed:
    """A schedule while it is armed: what has arrived, what has fired, what happened. Filled by the hub's thread."""

    def __init__(self, schedule: Schedule, system: System) -> None:
        self.schedule = schedule
        self.fired: list[Fired] = []
        self.events: list[tuple[float, str]] = []
        self.held = 0
        self.failure: BaseException | None = None
        self._system = system
        self._waiting: list[Fault] = list(schedule.faults)
        self._counts: Counter[tuple[str, int, str]] = Counter()

    @property
    def done(self) -> bool:
        """Every fault has fired and its worker is back."""
        return not self._waiting and not self.held

    def arrived(self, member: _Member, site: str) -> Fault | None:
        """Count an arrival; the fault to carry out there, if any."""
        incarnation = member.incarnation - member.base
        arrival = (member.worker.name, incarnation, site)
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
        """Why the run proves less than it should: faults that never fired, each with what was seen instead."""
        reached = sorted({f"{worker}/{site}" for worker, _, site in self._counts})
        seen = f"arrivals were seen at {', '.join(reached)}" if reached else "no arrival was seen anywhere"
        return [f"{fault} did not fire: its point was not reached; {seen}" for fault in self._waiting]

    def logs(self) -> tuple[Path, ...]:
        """The workers' logs."""
        return tuple(self._system.logs())
