"""A verdict is never had for nothing: workers that behave oddly, in a queue made of files (`odd_workers`)."""

from __future__ import annotations

import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from chaos import (
    ChaosError,
    Condition,
    Ledger,
    PortTaken,
    System,
    Undecided,
    UnknownName,
    Violated,
    Worker,
    nothing_lost,
    one_effect_per_key,
)
from chaos.history import Arrived, Asked, Began, Noted
from chaos.schedule import Schedule
from chaos.waiting import Deadline, wait_until
from chaos.wire import messages
from tests.chaos import odd_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane, Run, Session

DONE = "w/w.done#1:crash-before"


def no_jobs(lane: Lane) -> str:
    """What is left to do."""
    return ", ".join(job.name for job in lane.files.glob("*.job"))


def one_job(run: Run) -> None:
    """A job; the worker answers for its key."""
    key = run.new_key()
    (run.lane.files / f"{key}.job").touch()
    run.accept(key)


@contextmanager
def queue(
    session: Session,
    worker: Callable[[], object],
    *,
    key: str = "key",
    workload: Callable[[Run], object] = one_job,
    grace: float = 0.3,
    within: float = 10,
    managed: bool = False,
) -> Iterator[System]:
    """A system of one worker `w`, without any server."""
    with session.lane() as lane:
        ledger = Ledger(lane.files / "ledger.jsonl", key=key)
        with System(
            lane,
            workers=[Worker("w", worker, env={"FILES": "{files}"}, managed=managed)],
            workload=workload,
            settled=[Condition("no jobs", no_jobs)],
            invariants=[one_effect_per_key(ledger), nothing_lost(ledger)],
            grace=grace,
            within=within,
        ) as system:
            yield system


@pytest.mark.parametrize("site", ["taken", "done", "removed"])
def test_correct_worker_holds(onecharge: Session, site: str) -> None:
    """A worker that repeats itself recognisably holds, and the fault was carried out by SIGKILL."""
    with queue(onecharge, odd_workers.correct) as system:
        verdict = system.drill(f"w/w.{site}#1:crash-before")
    verdict.require_holds()
    assert [str(fired) for fired in verdict.fired] == [f"w~0/w.{site}#1:crash-before: w~0 was ended by SIGKILL"]


def test_what_is_left_to_do(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What workers do when they are started may take its time; what a drill has left makes the next one unknown."""
    began = time.monotonic()

    def outstanding(_lane: Lane) -> str:
        return "nearly there" if time.monotonic() < ready else ""

    with queue(onecharge, odd_workers.correct) as system:
        system.settled = (*system.settled, Condition("slow", outstanding))
        ready = began + 2 * system.grace
        system.drill(DONE).require_holds()
        ready = time.monotonic() + 2 * system.grace
        assert system.drill(DONE).reasons == ["work of an earlier drill was left: nearly there"]
    monkeypatch.setattr("chaos.system._START_S", 0.0)
    with queue(onecharge, odd_workers.correct) as system:
        system.settled = (*system.settled, Condition("slow", outstanding))
        ready = time.monotonic() + 2 * system.grace
        assert system.drill(DONE).reasons == ["the system had not settled when it began: nearly there"]


def test_incarnations_are_named(onecharge: Session) -> None:
    """The successor of a killed worker is killed at its own first arrival."""
    with queue(onecharge, odd_workers.correct) as system:
        verdict = system.drill("w/w.taken#1:crash-before; w~1/w.done#1:crash-before")
    verdict.require_holds()
    assert [fired.worker for fired in verdict.fired] == ["w~0", "w~1"]


def test_worker_that_does_not_come_back(onecharge: Session) -> None:
    """A killed worker whose successor ends by itself makes the drill unknown."""
    with queue(onecharge, odd_workers.exits_on_restart) as system:
        verdict = system.drill(DONE)
    assert verdict.status == "unknown"
    assert any("exited with code 1" in reason for reason in verdict.reasons)


def test_worker_that_ends_after_its_drill(onecharge: Session) -> None:
    """A worker that ends by itself once all is done is told by the next drill, or at the latest at the end."""
    with pytest.raises(Undecided, match="exited with code 3"), queue(onecharge, odd_workers.exits_afterwards) as system:
        system.drill()


def test_worker_that_is_managed(onecharge: Session) -> None:
    """A worker that ends by itself is started again where somebody manages it, and that is told; else nobody knows."""

    def jobs(run: Run) -> None:
        for _ in range(3):
            one_job(run)

    with queue(onecharge, odd_workers.exits_after_each, workload=jobs, managed=True) as system:
        for _ in range(2):
            verdict = system.drill()
            verdict.require_holds()
            told = [event.text for event in verdict.history if isinstance(event, Noted)]
            assert told[:2] == [f"w~{n} exited with code 4 by itself, and is started again" for n in range(2)]
    with queue(onecharge, odd_workers.exits_after_each, workload=jobs) as system:
        assert system.drill().status == "unknown"


def test_worker_whose_port_is_taken(onecharge: Session) -> None:
    """It is said who has it; a child that the kernel has not buried yet is waited for."""
    with onecharge.lane() as lane:
        worker = Worker("web", odd_workers.forks_heavy_children, http=True)
        for _ in range(3):
            process = lane.start(worker)
            lane.require_listening(worker, 0, process, Deadline(20))
            process.kill()
        other = Worker("other", odd_workers.forks_heavy_children, http=True)
        port = lane.port(other, 0)
        told = rf"^other\.0 cannot be started at {port.address}, which .* has taken"
        with socket.create_server(("127.0.0.1", port.number)), pytest.raises(PortTaken, match=told):
            lane.start(other)


def test_managed_worker_that_never_comes_back(onecharge: Session) -> None:
    """A worker that ends as often as it is started makes the drill unknown in the end."""
    with queue(onecharge, odd_workers.exits_on_restart, within=2, managed=True) as system:
        assert system.drill(DONE).status == "unknown"


def test_effect_after_the_verdict(onecharge: Session) -> None:
    """An effect that comes when its drill has been judged is found when the system is left, with the drill's name."""
    late = pytest.raises(Violated, match=r"violated: w~0/w\.done#1:crash-before")
    with late, queue(onecharge, odd_workers.repeats_late) as system:
        assert system.drill(DONE).status == "holds"


def test_arrivals_of_an_earlier_drill(onecharge: Session) -> None:
    """An arrival that belongs to the drill before is not where the next one breaks."""
    with queue(onecharge, odd_workers.slow_last_step) as system:
        for _ in range(3):
            system.drill().require_holds()  # judged when its job is gone, 10 ms before the worker's last arrival
            verdict = system.drill("w/w.removed#1:crash-before")
            verdict.require_holds()
            arrivals = [event for event in verdict.history if isinstance(event, Arrived)]
            assert arrivals[0].point == "w~0/w.taken#1"


def test_effect_of_an_earlier_drill_that_is_told_late(onecharge: Session) -> None:
    """What was on the wire before a drill began is not in its history, whenever the wire tells of it."""
    with queue(onecharge, odd_workers.correct) as system, system.crew.armed(Schedule()) as armed:
        began = armed.history[0].at
        for at, effect in ((began - 0.001, 1), (began, 2)):
            system.crew._heard(messages.Seen(at, 7, effect, ("w~0/postgres.write#1",), "w.0"))
        assert [event.effect for event in armed.history if isinstance(event, Asked) and event.connection == 7] == [2]


def test_nothing_of_a_held_worker_goes_on(onecharge: Session) -> None:
    """While a worker is held to be killed, arrivals of its other threads neither count nor go on."""
    schedule = Schedule.parse("w/w.one#1:crash-before; w/w.two#1:crash-before")
    with queue(onecharge, odd_workers.correct) as system, system.crew.armed(schedule) as armed:
        pid = system.crew._members["w.0"].process.pid
        with system.lane.supervisor.changing():  # nobody is killed meanwhile
            assert not system.crew._arrive("w.0~0", "w.one", pid)
            assert not system.crew._arrive("w.0~0", "w.two", pid)
        assert system.lane.supervisor.wait_for(lambda: not armed.held, Deadline(10))
        assert [(fired.fault, fired.worker) for fired in armed.fired] == [("w~0/w.one#1:crash-before", "w~0")]


def test_worker_that_always_arrives_somewhere(onecharge: Session) -> None:
    """A worker that arrives at a checkpoint by the clock can be drilled: nobody waits for it to rest."""
    with queue(onecharge, odd_workers.two_threads) as system:
        verdict = system.drill(DONE)
    verdict.require_holds()


def test_kill_that_misses_the_worker(onecharge: Session) -> None:
    """A worker that left the process group it was started in survives the kill, and the drill says so."""
    with queue(onecharge, odd_workers.in_a_session_of_its_own, within=5) as system:
        verdict = system.drill(DONE)
    assert verdict.status == "unknown"
    assert any("left that process's group" in reason for reason in verdict.reasons)


def test_ledger_with_another_key(onecharge: Session) -> None:
    """A field that the ledger's records do not have makes the drill unknown, and the story names it."""
    with queue(onecharge, odd_workers.correct, key="order", within=2) as system:
        verdict = system.drill(DONE)
    assert verdict.status == "unknown"
    assert "the field 'order'" in verdict.story()
    with pytest.raises(Undecided):
        verdict.require_holds()


def test_key_that_no_ledger_knows(onecharge: Session) -> None:
    """A key of which no ledger has a record proves nothing, even where no invariant asks for one."""

    def workload(run: Run) -> None:
        (run.lane.files / f"{run.new_key()}.job").touch()
        run.accept("another key")

    with queue(onecharge, odd_workers.correct, workload=workload) as system:
        system.invariants = system.invariants[:1]  # one effect per key
        verdict = system.drill(DONE)
    assert verdict.status == "unknown"
    assert "no ledger has a record" in verdict.reasons[0]


def test_a_workload_waits_for_what_has_happened(onecharge: Session) -> None:
    """It sees its own worker come to a point, and may go on from there; what it does with what it sees is its own."""
    seen = []

    def workload(run: Run) -> None:
        one_job(run)
        wait_until("the worker to be done", lambda: "w~0/w.done#1" in map(str, run.history), Deadline(10))
        seen.extend(run.history)
        run.history.clear()

    with queue(onecharge, odd_workers.correct, workload=workload) as system:
        verdict = system.drill()
    verdict.require_holds()
    assert isinstance(seen[0], Began)
    assert {*seen} < {*verdict.history}


def test_ledger_that_shrinks(onecharge: Session) -> None:
    """A ledger from which something was taken away is no ledger any more."""
    shrunk = pytest.raises(ChaosError, match="a ledger only grows")
    with shrunk, queue(onecharge, odd_workers.correct) as system:
        system.drill().require_holds()
        (system.lane.files / "ledger.jsonl").write_text("")


def test_empty_workload(onecharge: Session) -> None:
    """A workload that had nothing accepted proves nothing."""
    with queue(onecharge, odd_workers.correct, workload=lambda _run: None) as system:
        verdict = system.drill()
    assert verdict.status == "unknown"


def test_workload_that_raises(onecharge: Session) -> None:
    """A workload that raises makes the drill unknown; what it raised is the cause of what `require_holds` raises."""

    def workload(_run: Run) -> None:
        raise ZeroDivisionError

    with queue(onecharge, odd_workers.correct, workload=workload) as system:
        verdict = system.drill()
    with pytest.raises(Undecided) as raised:
        verdict.require_holds()
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_unknown_worker_in_a_schedule(onecharge: Session) -> None:
    """A schedule that names a worker the system does not have is refused with the nearest name."""
    with queue(onecharge, odd_workers.correct) as system, pytest.raises(UnknownName, match="did you mean 'w'"):
        system.drill("ww/w.done#1:crash-before")


@pytest.mark.parametrize("names", [[], ["w"], ["w", "w"]])
def test_system_that_could_not_judge(onecharge: Session, names: list[str]) -> None:
    """A system without an invariant, or with two workers of one name, is refused when it is made."""
    with onecharge.lane() as lane:
        ledger = Ledger(lane.files / "ledger.jsonl", key="key")
        with pytest.raises(ChaosError, match="needs an invariant, and workers of different names"):
            System(
                lane,
                workers=[Worker(name, odd_workers.correct) for name in names],
                workload=one_job,
                settled=[],
                invariants=[nothing_lost(ledger)] if len(names) > 1 else [],
            )
