"""A system under test: workers in a lane, and what it means for them to be done and to be right."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from chaos.crew import Crew
from chaos.drill import judge, run_drill
from chaos.errors import ChaosError, UnknownName
from chaos.ground import Ground
from chaos.history import Judged, Noted, write
from chaos.recording import record
from chaos.schedule import Schedule
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Self

    from chaos.conditions import Condition
    from chaos.drill import Run, Verdict
    from chaos.ground import Body
    from chaos.invariants import Invariant, Ledger
    from chaos.lane import Lane
    from chaos.recording import Recording
    from chaos.schedule import Fault
    from chaos.worker import Worker

_LOOK_S = 0.01
_START_S = 10.0


class System(Ground):
    """A lane's workers, a workload, conditions for being settled, and invariants.

    Use it as a context manager. Workers are started when it is entered and kept running from drill to drill; only
    those that a schedule kills are started anew. Leaving it waits the grace once more and judges every key once more,
    for an effect that came after its drill had been judged.

    Args:
        lane: where the workers run.
        workers: the roles, started in this order.
        workload: called once per drill with a `Run`; it must have something accepted.
        settled: conditions that all hold when nothing is left to do.
        invariants: what must be true of the ledgers.
        grace: seconds to wait, once settled, for what no condition sees, before something is called lost.
        within: seconds a drill may take; more than a killed Kafka consumer's session time-out, after which a dynamic
            member's partitions go to its successor (45 s by librdkafka's default).

    Raises:
        ChaosError: there is no invariant, or two workers have the same name.
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
        within: float = 60.0,
    ) -> None:
        self.host = self.lane = lane
        self.workers, self.workload = tuple(workers), workload
        self.settled, self.invariants = tuple(settled), tuple(invariants)
        self.grace, self.within = grace, within
        self.crew = Crew(lane, self.workers)
        self.recording: Recording | None = None
        self.certain: Sequence[str] = ()  # see `chaos.armed.Armed`
        self._started = False  # a drill has been
        self._held: list[Verdict] = []
        self._stack = contextlib.ExitStack()
        names = [worker.name for worker in self.workers]
        if not self.invariants or len(set(names)) < len(names):
            msg = f"a system needs an invariant, and workers of different names; these are {', '.join(names)}"
            raise ChaosError(msg)

    def __enter__(self) -> Self:
        self._stack.enter_context(self.crew)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if kind is None and self._held:
                time.sleep(self.grace)
                self._judge_once_more()

    def drill(self, schedule: str | Schedule = "", *, report: bool = True) -> Verdict:
        """Run the workload under a schedule and judge it. What happened is appended to the lane's ``history.jsonl``.

        `report` says whether the verdict is told to whoever listens, such as pytest's summary.

        Raises:
            ChaosError: the text is no schedule.
            UnknownName: the schedule names a worker that this system does not have, or a site that nothing has; or,
                once the system was recorded, begins at a point that no recording shows.
        """
        plan = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        self._require_known(plan)
        verdict = self.run(plan)
        if verdict.status == "holds":
            self._held.append(verdict)
        if report:
            self.tell(verdict)
        return verdict

    def each(self, schedules: Iterable[Schedule], body: Body | None = None) -> Iterator[Verdict]:
        """Carry out schedules, one after the other; see `chaos.ground.Ground.each`."""
        for one in schedules:
            self.certain = self.recording.points if self.recording is not None else ()
            try:
                verdict = body(self, one) if body is not None else self.drill(one, report=False)
            finally:
                self.certain = ()
            yield verdict

    def record(self) -> Recording:
        """See `chaos.ground.Ground.record`."""
        self.recording = record(self)
        return self.recording

    def run(self, plan: Schedule) -> Verdict:
        """One drill, without the checks of its schedule that `drill` makes, and not told to anybody."""
        untold = self.crew.untold()
        self.crew.network.restore()
        self.crew.revive()
        self.crew.redone()
        left = self._left_over()
        self.crew.reroute(plan)
        if not plan.faults or not all(fault.key for fault in plan.faults):
            self.crew.rest()  # what counts without a key might count what comes late from the drill before
        verdict = run_drill(self, plan)
        verdict.reasons += untold
        before = "work of an earlier drill was left" if self._started else "the system had not settled when it began"
        verdict.reasons += [f"{before}: {left}"] if left else []
        self._started = True
        said = (verdict.status, tuple(verdict.reasons), tuple(map(str, verdict.violations)))
        verdict.history.append(Judged(time.time(), *said))
        write(self.lane.files / "history.jsonl", verdict.history)
        return verdict

    def _left_over(self) -> str:
        """What the drill before has left to do and is not done in the time that it would have had for it.

        Before the first it is what workers do when they are started, and nobody knows how long that takes.
        """
        deadline = Deadline(self.grace if self._started else max(self.grace, _START_S))
        while (left := self.outstanding()) and not deadline.passed:
            self.crew.wait(_LOOK_S)
        return left

    def _require_wired(self, fault: Fault) -> None:
        for service, why in self.lane.links.unwired.items():
            if fault.link.endswith(service):
                raise ChaosError(f"{fault}: {why}, so the wire does not stand on that link")

    def _require_known(self, plan: Schedule) -> None:
        names = [worker.name for worker in self.workers]
        for fault in plan.faults:
            if fault.worker in self.lane.services:
                raise ChaosError(f"{fault}: {fault.worker} is trusted, it keeps a ledger and is never broken")
            if fault.worker not in names:
                raise UnknownName("worker", fault.worker, names)
            if fault.link and not self.crew.network.links_of(fault):
                self._require_wired(fault)
                raise UnknownName("link", fault.link, self.lane.links.names)
            if fault.is_outage:
                server = self.lane.server(fault.link)  # is it ours to break?
                if fault.action == "full":
                    server.require_room()
            if self.recording is None:
                fault.require_known_site()
        if self.recording is not None and plan.faults:
            self.recording.require(plan.faults[0])

    @property
    def url(self) -> str:
        """Where the system's HTTP worker is spoken to."""
        for worker in self.workers:
            if worker.http:
                return f"http://{self.lane.port(worker, 0).address}"
        msg = "no worker of this system serves HTTP: make one with Worker(…, http=True)"
        raise ChaosError(msg)

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """The ledgers that the invariants speak of."""
        return tuple(dict.fromkeys(invariant.ledger for invariant in self.invariants))

    def outstanding(self) -> str:
        """What is left to do, in words; an empty text when the system has settled."""
        for condition in self.settled:
            left = condition.outstanding(self.lane)
            if left:
                return left
        return ""

    def _judge_once_more(self) -> None:
        held = [verdict for verdict in self._held if verdict.status == "holds"]  # a test may have judged otherwise
        for verdict in held:
            verdict.violations = judge(self, verdict.keys, settled=True)
            if verdict.violations:
                verdict.history.append(Noted(time.time(), "the violation was found at the end of the run"))
        for verdict in held:
            verdict.require_holds()
        for last in held[-1:]:
            last.reasons += self.crew.untold()
            last.require_holds()
