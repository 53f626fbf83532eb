"""A system under test: workers in a lane, and what it means for them to be done and to be right."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from chaos.crew import Crew
from chaos.drill import judge, run_drill
from chaos.errors import ChaosError, UnknownName
from chaos.history import Noted
from chaos.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

    from chaos.conditions import Condition
    from chaos.drill import Run, Verdict
    from chaos.invariants import Invariant, Ledger
    from chaos.lane import Lane, Worker


class System:
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
        self.lane, self.workers, self.workload = lane, tuple(workers), workload
        self.settled, self.invariants = tuple(settled), tuple(invariants)
        self.grace, self.within = grace, within
        self.crew = Crew(lane, self.workers)
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

    def drill(self, schedule: str | Schedule = "") -> Verdict:
        """Run the workload under a schedule and judge it.

        Raises:
            ChaosError: the text is no schedule.
            UnknownName: the schedule names a worker that this system does not have.
        """
        plan = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        names = [worker.name for worker in self.workers]
        for fault in plan.faults:
            if fault.worker not in names:
                raise UnknownName("worker", fault.worker, names)
        untold = self.crew.untold()
        self.crew.revive()
        if not plan.faults or not all(fault.key for fault in plan.faults):
            self.crew.rest()  # what counts without a key might count what comes late from the drill before
        left = self.outstanding()
        verdict = run_drill(self, plan)
        verdict.reasons += untold
        verdict.reasons += [f"work of an earlier drill was left: {left}"] if left else []
        if verdict.status == "holds":
            self._held.append(verdict)
        self.lane.on_verdict(verdict)
        return verdict

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
        for verdict in self._held:
            verdict.violations = judge(self, verdict.keys, settled=True)
            if verdict.violations:
                verdict.history.append(Noted(time.time(), "the violation was found at the end of the run"))
                verdict.require_holds()
        last = self._held[-1]
        last.reasons += self.crew.untold()
        last.require_holds()
