"""Lanes side by side: several systems of the same kind on shared servers; a schedule goes to whichever is free.

What makes such a system is a function of the session, used as a context manager::

    @contextlib.contextmanager
    def shop(session):
        with session.lane(schema="schema.sql", topics={"orders": 4}) as lane:
            ...
            with System(lane, workers=…, workload=…, settled=…, invariants=…) as system:
                yield system

    with session.lanes(shop) as lanes:
        lanes.sweep().require_holds()

A schedule that did not hold may have left anything behind. Its lane is closed then, and the next schedule there has a
new one: another database, other topics, other processes.
"""

from __future__ import annotations

import contextlib
import queue
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING

from chaos.errors import ChaosError, NotHolding
from chaos.ground import Ground
from chaos.schedule import Schedule
from chaos.sweep import outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from typing import Self, TypeAlias

    from chaos.drill import Verdict
    from chaos.ground import Body
    from chaos.recording import Recording
    from chaos.session import Session
    from chaos.system import System
    from chaos.worker import Worker

    Make: TypeAlias = Callable[[Session], AbstractContextManager[System]]


class _Place:
    """Where one lane's system is, and the next after it; made when it is needed."""

    def __init__(self, make: Callable[[], AbstractContextManager[System]]) -> None:
        self._make = make
        self._stack = contextlib.ExitStack()
        self._system: System | None = None
        self.recording: Recording | None = None

    def system(self) -> System:
        """The system that runs here."""
        if self._system is None:
            self._system = self._stack.enter_context(self._make())
            self._system.recording = self.recording
        return self._system

    def leave(self) -> None:
        """End what runs here. A drill that is found to be violated by then says so in its verdict."""
        self._system = None
        with contextlib.suppress(NotHolding), self._stack.pop_all():
            pass


class Lanes(Ground):
    """See the module's docstring. Made by `chaos.session.Session.lanes`; use it as a context manager.

    Leaving it judges every drill that held once more, as leaving a `System` does.

    Args:
        session: the test run.
        make: makes one system, in a lane of its own.
        count: how many run side by side.

    Raises:
        ChaosError: that is none.
    """

    def __init__(self, session: Session, make: Make, count: int) -> None:
        if count < 1:
            raise ChaosError(f"{count} lanes: expected at least one")
        self.host = self.session = session
        self.count = count
        self._places = [_Place(lambda: make(session)) for _ in range(count)]
        self._free: queue.SimpleQueue[_Place] = queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(count, "onecharge-lane")
        self._held: list[Verdict] = []
        self.workers: Sequence[Worker] = ()

    def __enter__(self) -> Self:
        try:
            systems = list(self._pool.map(_Place.system, self._places))
        except BaseException:
            self._close()
            raise
        self.workers = systems[0].workers
        for place in self._places:
            self._free.put(place)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._close()
        if kind is None:
            for verdict in self._held:
                verdict.require_holds()

    def drill(self, schedule: str | Schedule = "", *, report: bool = True) -> Verdict:
        """One drill in a lane that is free; see `chaos.system.System.drill`."""
        verdict = self._drill(Schedule.parse(schedule) if isinstance(schedule, str) else schedule)
        if report:
            self.tell(verdict)
        return verdict

    def _drill(self, schedule: Schedule, body: Body | None = None) -> Verdict:
        place = self._free.get()
        try:
            [verdict] = place.system().each([schedule], body)
            if outcome(verdict) in {"violated", "unknown"}:
                try:
                    place.leave()
                except Exception as error:  # noqa: BLE001 - the verdict is what matters, and it tells
                    verdict.reasons.append(f"its lane could not be left: {type(error).__name__}: {error}")
            elif verdict.status == "holds":
                self._held.append(verdict)
        finally:
            self._free.put(place)
        return verdict

    def each(self, schedules: Iterable[Schedule], body: Body | None = None) -> Iterator[Verdict]:
        """Carry out schedules, as many at once as there are lanes; see `chaos.ground.Ground.each`."""
        waiting: set[Future[Verdict]] = set()
        more = iter(schedules)
        while True:
            while len(waiting) < self.count and (schedule := next(more, None)) is not None:
                waiting.add(self._pool.submit(self._drill, schedule, body))
            if not waiting:
                return
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)

    def record(self) -> Recording:
        """Find out where the system can be broken; see `chaos.recording`. The lanes are taken to be alike."""
        place = self._free.get()
        try:
            recording = place.system().record()
        finally:
            self._free.put(place)
        for one in self._places:
            one.recording = recording
            one.system().recording = recording
        return recording

    def _close(self) -> None:
        self._pool.shutdown(cancel_futures=True)  # no lane is left while something is made, or under way, in it
        with ThreadPoolExecutor(self.count, "onecharge-leave") as pool:
            list(pool.map(_Place.leave, self._places))
