"""The workers of a running system: who arrives where, who is killed there, and how they come back.

Four threads meet here. The supervisor's hub hears a worker arrive at a checkpoint and lets it go on or holds it, and
hears what the wire says. One thread kills what is held at a checkpoint and starts next incarnations; it is a thread of
its own because a workload may be waiting for the very worker that died. Another carries out what the wire orders, which
may be about a worker that is just being started. The drill's thread arms schedules and looks at what became of them.
Whatever they share is changed under the supervisor's lock.

What makes a kill count: the process that arrived is gone, by our SIGKILL and nothing else, and from the moment it was
held nothing more of that worker was let go on, nor through: its links were cut before it was killed, and what it had
sent before was answered by its servers before the fault is said to have fired (`chaos.wire.proxy`).
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.armed import Armed, armed_fault
from chaos.errands import Errands
from chaos.errors import ChaosError, PortTaken, ProcessDied
from chaos.network import Network
from chaos.waiting import Deadline, wait_until
from chaos.wire import messages
from chaos.workers.proc import alive

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from chaos.lane import Lane
    from chaos.schedule import Fault, Schedule
    from chaos.worker import Worker
    from chaos.workers.process import Process

_START_S = 30.0
_DEATH_S = 1.0
_QUIET_S = 0.02
_RESTLESS_S = 0.2
_AGAIN_S = 0.5
_FAREWELL_S = 2.0
_BLIND = {
    "raw": "what its connection did could not be seen",
    "astray": "the wire broke its connection off",
    "broken": "nothing that the wire says of it counts",
}
_LOSES = ("lose-request", "lose-reply", "refuse")
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}


@dataclass
class Member:
    """One replica of a role: its present process and how many there have been before."""

    worker: Worker
    replica: int
    incarnation: int = 0
    base: int = 0  # the incarnation that a schedule calls 0
    held: int = 0  # faults that have stopped it and from which it is not back yet
    doomed: bool = False  # stopped at a point and not killed yet: nothing more of it counts or goes on
    told: bool = False  # a drill has said that this process ended by itself
    started: int = -1  # the incarnation that `process` is

    process: Process = field(init=False)

    @property
    def key(self) -> str:
        """Role and replica: what its incarnations have in common."""
        return f"{self.worker.name}.{self.replica}"

    @property
    def name(self) -> str:
        """As in a point's name: role, replica if there are several, incarnation since the schedule was armed."""
        role = self.worker.name if self.worker.replicas == 1 else f"{self.worker.name}.{self.replica}"
        return f"{role}~{self.incarnation - self.base}"

    @property
    def died(self) -> bool:
        """Whether it ended by itself."""
        return self.started >= 0 and self.process.exit is not None and not self.held


class Crew:
    """See the module's docstring. Use it as a context manager; leaving it kills them all."""

    def __init__(self, lane: Lane, workers: Sequence[Worker]) -> None:
        self._last_arrival = time.time()
        self._happened = 0
        self._lane, self._workers = lane, tuple(workers)
        self._members: dict[str, Member] = {}
        self._armed: Armed | None = None
        self._owing: dict[str, float] = {}  # who has lost a request or a reply and not done anything since; until when
        self.overhear: Callable[[messages.Event], None] = lambda _event: None  # all that the wire says; must not wait
        self._recovery = Errands("onecharge-recovery")
        self._orders = Errands("onecharge-orders")
        self.network = Network(lane, lambda: self._armed)

    def __enter__(self) -> Self:
        self._lane.listen(self._arrive)
        try:
            self._lane.links.wire.hear = self._heard
            for worker in self._workers:
                for replica in range(worker.replicas):
                    member = Member(worker, replica)
                    self._members[member.key] = member
                    self._start(member)
            for member in self._members.values():
                self._require_listening(member)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._recovery.close()
        self._orders.close()
        self.network.close()
        self._lane.listen(None)
        for member in self._members.values():
            if member.started >= 0:
                member.process.kill()

    # -- what a drill asks ---------------------------------------------------------------------------------------

    @property
    def logs(self) -> tuple[Path, ...]:
        """The logs of all workers."""
        return tuple(member.process.log for member in self._members.values())

    def require_healthy(self) -> None:
        """Raise `ProcessDied` if a worker ended by itself that nobody starts again, and whatever stopped a recovery."""
        if self._armed is not None and self._armed.failure is not None:
            raise self._armed.failure
        for member in self._members.values():
            if member.worker.managed and self._armed is not None:
                self._manage(member, self._armed)
            elif member.died:
                member.told = True
                raise ProcessDied(member.name, how=member.process.exit, log=member.process.log)

    def _manage(self, member: Member, armed: Armed) -> None:
        """Start it again if it ended by itself; if it ends once more, that is seen at the next look."""
        with self._lane.supervisor.changing():
            if not member.died:
                return
            member.held += 1  # by this thread, of several that may look
            armed.note(f"{member.name} {member.process.exit} by itself, and is started again")
        try:
            self._restart(member)
            armed.started(member.name, member.process.pid)
        except (PortTaken, ProcessDied):
            pass
        finally:
            with self._lane.supervisor.changing():
                member.held -= 1

    def untold(self) -> list[str]:
        """Who ended by itself since a drill last looked, each said once."""
        found = []
        for member in self._members.values():
            if member.died and not member.told and not member.worker.managed:
                member.told = True
                found.append(f"{member.name} {member.process.exit} by itself, after the last drill had been judged")
        return found

    def revive(self) -> None:
        """Start anew who ended by itself."""
        for member in self._members.values():
            if member.process.exit is not None:
                self._restart(member)

    def reroute(self, schedule: Schedule) -> None:
        """Have a detour for the links that a schedule makes bad, and for no other; see `chaos.services.detours`.

        An open connection cannot be moved, so the workers that this is about are started anew.
        """
        links = self._lane.links
        toxics = (fault for fault in schedule.faults if not fault.is_outage)
        moved = links.misled({port for fault in toxics for port in self.network.links_of(fault)})
        members = [self._members[label] for label in {link.label for link in moved}]
        for member in members:
            with self._lane.supervisor.changing():
                member.doomed = True
            member.process.stop(Deadline(_FAREWELL_S))
            links.cut(member.key)
            links.bury(member.key)
        try:
            links.reroute(moved)
        finally:
            for member in members:
                self._restart(member)

    def mend(self) -> None:
        """Nothing else is left to do in this drill: heal what stands until then."""
        with self._lane.supervisor.changing():
            if self._armed is not None:
                self._armed.mend()
        self._lane.links.wire.do(messages.Mend)

    def wait(self, seconds: float) -> None:
        """Return when something has happened on the wire or to a worker, or after so long."""
        before = self._happened
        self._lane.supervisor.wait_for(lambda: self._happened != before, Deadline(seconds))

    def hear_out(self) -> None:
        """Return when all that the wire has seen until now was told."""
        self._lane.links.wire.do(messages.Count)

    def rest(self) -> None:
        """Return when no worker has arrived anywhere for a moment.

        A worker may be on its way to a checkpoint after what the last drill waited for was done; such an arrival must
        not be counted in the next. Some worker may arrive somewhere by the clock and never rest: that is no such one.
        """
        deadline = Deadline(_RESTLESS_S)
        while (left := self._last_arrival + _QUIET_S - time.time()) > 0 and not deadline.passed:
            self._lane.supervisor.wait_for(lambda: False, Deadline(min(left, deadline.left)))

    def redone(self) -> None:
        """Return when those who have lost a request or a reply have done something again, or had the time for it.

        A drill may be settled before that: the server has done what was asked, and only its client does not know. What
        that does then, such as to read again, would be of the next drill.
        """
        until = Deadline(max([0.0, *(until - time.monotonic() for until in list(self._owing.values()))]))
        self._lane.supervisor.wait_for(lambda: not self._owing, until)
        self._owing.clear()

    @contextlib.contextmanager
    def armed(self, schedule: Schedule, certain: Collection[str] = ()) -> Iterator[Armed]:
        """Have the schedule's faults carried out at their points, for as long as this lasts; see `Armed`."""
        armed = Armed(schedule, self._lane.links.unwired, certain)
        wire = self._lane.links.wire
        with self._lane.supervisor.changing():
            for member in self._members.values():
                member.base = member.incarnation
            self._armed = armed

        def arm(number: int) -> messages.Arm:
            armed.number = number
            return messages.Arm(
                number, tuple(armed_fault(fault, self.network.links_of(fault)) for fault in schedule.faults)
            )

        wire.do(arm)
        try:
            yield armed
            for text in self._lane.links.unseen():
                armed.trouble(text)
        finally:
            try:
                wire.do(messages.Disarm)
            finally:
                with self._lane.supervisor.changing():
                    self._armed = None
                    self._owing = {
                        label: time.monotonic() + _AGAIN_S for label in self._owing
                    }  # it was silent until now
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
            self._last_arrival = time.time()
            armed = self._armed
            fault = armed.arrived(member, self._generation(member.worker), site) if armed is not None else None
            if armed is None or fault is None:
                return True
            member.held += 1
            member.doomed = True
            armed.held += 1
        self._recovery.add(functools.partial(self._crash, member, fault, armed, pid))
        return False

    def _generation(self, worker: Worker) -> int:
        """How many processes of a role have been replaced since the schedule was armed."""
        return sum(one.incarnation - one.base for one in self._members.values() if one.worker is worker)

    def _heard(self, event: messages.Event) -> None:
        """In the hub's thread: what happens on the wire. Nobody waits for what has only been asked for."""
        quietly = isinstance(event, messages.Seen | messages.Opened)
        with self._lane.supervisor.changing(quietly=quietly):
            armed = self._armed
            self._happened += not quietly
            self._overhear(event)
            if isinstance(event, messages.Order):
                self._ordered(event, armed)
            elif armed is None:
                return
            elif isinstance(event, messages.Seen):
                self._last_arrival = max(self._last_arrival, event.at)
                if event.at >= armed.history[0].at:  # it may be told a moment later, and be of the drill before
                    armed.seen(event)
            elif isinstance(event, messages.Answered):
                armed.answered(event)
            elif isinstance(event, messages.Closed):
                armed.closed(event.connection)
            elif isinstance(event, messages.Noted):
                armed.note(f"{event.worker} {event.kind}: {event.text}")
                if event.kind in _BLIND:
                    armed.blind(f"{event.worker}: {_BLIND[event.kind]}: {event.text}")
            elif isinstance(event, messages.Reached | messages.Stands | messages.Fired | messages.Failed):
                self._fault(event, armed)

    def _overhear(self, event: messages.Event) -> None:
        if isinstance(event, messages.Seen):
            self._owing.pop(event.worker, None)
        self.overhear(event)

    def _ordered(self, order: messages.Order, armed: Armed | None) -> None:
        if order.links:
            self.network.ordered(order, armed)
            return
        member = self._members[order.worker]
        whole = order.what == "kill" and not order.pid
        if member.doomed or order.life != member.incarnation or (whole and armed is None):
            refuse = functools.partial(self._lane.links.wire.carried, order.order, f"{member.name} is dying already")
            self._orders.add(refuse)
            return
        if whole and armed is not None:
            member.doomed = True
            member.held += 1
            armed.held += 1
        self._orders.add(functools.partial(self._carry_out, member, order, armed, taken=whole))

    def _fault(
        self, event: messages.Reached | messages.Stands | messages.Fired | messages.Failed, armed: Armed
    ) -> None:
        if event.armed != armed.number:
            return
        if isinstance(event, messages.Reached):
            armed.reached(event.fault)
            return
        if isinstance(event, messages.Stands):
            armed.stands(event.fault)
            return
        fault, member = armed.faults[event.fault], self._members[event.worker]
        if isinstance(event, messages.Failed) and event.displaced and armed.certain:
            armed.note(f"{fault} was not carried out: {event.reason}")
            return
        armed.over(event.fault)
        if fault.action in _LOSES and not event.killed:
            self._owing[event.worker] = time.monotonic() + _AGAIN_S
        if isinstance(event, messages.Fired):
            armed.broke(fault, member.name, event.what, alone=event.alone)
        else:
            armed.spared(fault, event.reason, unfit=event.unfit)
        if event.killed:
            self._recovery.add(functools.partial(self._bring_back, member, armed))

    def _carry_out(self, member: Member, order: messages.Order, armed: Armed | None, *, taken: bool) -> None:
        """What the wire cannot do exactly: only the keeper knows that a pid is still the process that it started."""
        error = ""
        try:
            process = self._started(member, order.life)
            if taken:
                process.kill()
                self._require_killed(member, process.pid)
            elif order.pid:
                os.kill(order.pid, _SIGNALS[order.what])
                if order.what == "kill":
                    gone = Deadline(_DEATH_S)
                    wait_until(f"process {order.pid} to be gone", lambda: not alive(order.pid), gone, every=0.001)
            elif not process.signal(_SIGNALS[order.what]):
                error = f"{member.name} had ended"
        except BaseException as failure:  # noqa: BLE001 - handed to the drill, which waits for it
            error = str(failure)
            if armed is not None:
                armed.failure = failure
        self._lane.links.wire.carried(order.order, error, taken=taken)

    def _started(self, member: Member, life: int) -> Process:
        """The process of that incarnation; its effects may be faster than the news that it runs."""
        deadline = Deadline(_START_S)
        if not self._lane.supervisor.wait_for(lambda: member.started == life, deadline):
            raise deadline.missed(f"{member.name} to be started", "starting")
        return member.process

    def _crash(self, member: Member, fault: Fault, armed: Armed, pid: int) -> None:
        """Kill who waits at a checkpoint, and bring it back."""
        try:
            self._lane.links.cut(member.key)
            name, ended = member.name, self._started(member, member.incarnation).kill()
            try:
                self._require_killed(member, pid)
            finally:
                landed = self._lane.links.bury(member.key)
            how = f"{ended}{'; delivered, reply lost: ' if landed else ''}{', '.join(landed)}"
            with self._lane.supervisor.changing():
                armed.broke(fault, name, how)
        except BaseException as error:  # noqa: BLE001 - handed to the drill, which waits for it
            armed.failure = error
        self._bring_back(member, armed)

    def _bring_back(self, member: Member, armed: Armed) -> None:
        """Start the next incarnation of who was killed."""
        try:
            if armed.failure is None:
                self._restart(member)
                armed.started(member.name, member.process.pid)
        except BaseException as error:  # noqa: BLE001 - handed to the drill, which waits for it
            armed.failure = error
        with self._lane.supervisor.changing():
            member.held -= 1
            armed.held -= 1

    def _require_killed(self, member: Member, pid: int) -> None:
        """It was our signal that ended the process we started, and the one that arrived (`pid`) is gone with it."""
        if member.process.exit is None or member.process.exit.status != -signal.SIGKILL:
            member.told = True  # by this
            raise ProcessDied(member.name, how=member.process.exit, log=member.process.log)
        try:
            wait_until(f"process {pid} to be gone", lambda: not alive(pid), Deadline(_DEATH_S), every=0.001)
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
        self._start(member)
        member.told = False
        self._require_listening(member)

    def _start(self, member: Member) -> None:
        calls = [one.call for one in self._workers if one.call]
        modules = sorted({call.partition(":")[0] for call in calls})
        worker, links = member.worker, self._lane.links
        generation = self._generation(worker)
        links.enlist(member.key, worker.name, generation, life=member.incarnation, whole_group=worker.kill == "group")
        process = self._lane.start(
            worker, replica=member.replica, incarnation=member.incarnation, preload=modules, wired=True
        )
        with self._lane.supervisor.changing():
            member.process, member.started = process, member.incarnation
        links.started(member.key, process.pid)

    def _require_listening(self, member: Member) -> None:
        """Wait until an HTTP worker accepts connections, or is about to be killed before it does."""
        if member.worker.http:
            deadline = Deadline(_START_S)
            self._lane.require_listening(
                member.worker, member.replica, member.process, deadline, unless=lambda: member.doomed
            )
