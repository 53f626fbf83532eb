"""A worker on the wire without a system around it: arm faults, start processes, hear what the wire says."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from chaos.armed import armed_fault
from chaos.schedule import Schedule
from chaos.waiting import Deadline
from chaos.wire import messages

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import Lane, Worker
    from chaos.workers.process import Process

E = TypeVar("E", bound=messages.Event)
T = TypeVar("T")

WITHIN_S = 30.0
_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}


class Rig:
    """The wire of a lane, spoken to directly. Orders are carried out while something is waited for."""

    def __init__(self, lane: Lane) -> None:
        self.lane, self.wire = lane, lane.links.wire
        self.events: list[messages.Event] = []
        self.processes: dict[str, Process] = {}
        self._orders: deque[messages.Order] = deque()
        self._waiting = False
        self._incarnations: dict[str, int] = {}
        self.wire.hear = self._hear

    def start(self, worker: Worker, replica: int = 0) -> Process:
        """The next incarnation of a worker; its name for `processes` is ``name.replica``."""
        label = f"{worker.name}.{replica}"
        number = self._incarnations[label] = self._incarnations.get(label, -1) + 1
        self.lane.links.enlist(label, worker.name, number, whole_group=worker.kill == "group")
        process = self.lane.start(worker, replica=replica, incarnation=number, wired=True)
        self.lane.links.started(label, process.pid)
        self.processes[label] = process
        return process

    def arm(self, schedule: str) -> None:
        """Count anew, and break what the schedule says. What was heard before is forgotten."""
        self.wire.do(messages.Count)  # what happened before has been heard when this is answered
        self.events.clear()
        self._incarnations = dict.fromkeys(self._incarnations, 0)
        faults = tuple(map(armed_fault, Schedule.parse(schedule).faults))
        self.wire.do(lambda number: messages.Arm(number, faults))

    def all(self, kind: type[E]) -> list[E]:
        """The events of one kind since `arm`."""
        if not self._waiting:  # reports come a moment late, but never later than the answer to a command
            self.wire.do(messages.Count)
        return [event for event in list(self.events) if isinstance(event, kind)]

    def sites(self, worker: str = "") -> list[str]:
        """The sites of all effects since `arm`, in order."""
        points = [event.points[0] for event in self.all(messages.Seen) if event.worker.startswith(worker)]
        return [point.partition("/")[2].partition("#")[0] for point in points]

    def fired(self) -> messages.Fired:
        """Wait until a fault has fired."""
        return self.wait("a fault to fire", lambda: self.all(messages.Fired))[0]

    def failed(self) -> str:
        """Wait until a fault could not be carried out; why."""
        return self.wait("a fault to fail", lambda: self.all(messages.Failed))[0].reason

    def wait(self, what: str, look: Callable[[], T]) -> T:
        """Wait until `look` finds something, carrying out the wire's orders meanwhile."""
        supervisor, deadline = self.lane.supervisor, Deadline(WITHIN_S)
        self._waiting = True
        try:
            while not (found := look()):
                if not supervisor.wait_for(lambda: bool(self._orders or look()), deadline):
                    raise deadline.missed(what, self.events[-5:], [process.log for process in self.processes.values()])
                while self._orders:
                    self._carry_out(self._orders.popleft())
            return found
        finally:
            self._waiting = False

    def disarm(self) -> None:
        """Break nothing more; what is still at work ends."""
        done: list[bool] = []

        def disarm() -> None:
            self.wire.do(messages.Disarm)
            with self.lane.supervisor.changing():
                done.append(True)

        thread = threading.Thread(target=disarm)
        thread.start()
        self.wait("the wire to be disarmed", lambda: done)
        thread.join()

    def _hear(self, event: messages.Event) -> None:
        with self.lane.supervisor.changing():
            self.events.append(event)
            if isinstance(event, messages.Order):
                self._orders.append(event)

    def _carry_out(self, order: messages.Order) -> None:
        process = self.processes[order.worker]
        if order.pid:
            os.kill(order.pid, _SIGNALS[order.what])
        elif order.what == "kill":
            process.kill()
        else:
            process.signal(_SIGNALS[order.what])
        self.wire.carried(order.order, taken=order.what == "kill" and not order.pid)
