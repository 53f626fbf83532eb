"""What a recording finds, what its audit finds of what the wire did not see, and the bad input that it is given."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos import (
    ChaosError,
    Condition,
    Invariant,
    Session,
    System,
    Undecided,
    UnknownName,
    Worker,
    no_rows,
    nothing_lost,
)
from chaos.history import Asked, Began, Judged, read
from chaos.waiting import Deadline, wait_until
from chaos.wire import client
from tests.chaos import job_workers
from tests.chaos.wire import exact_workers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos import Run, Violation

SITES = ("http.post", "kafka.produce", "postgres.commit")


def two_jobs(run: Run) -> None:
    """Two jobs, whose keys are told before anybody can see them."""
    for _ in range(2):
        key = run.new_key()
        run.execute("insert into jobs (id) values (%s)", key)
        run.accept(key)


@contextlib.contextmanager
def jobs(session: Session, **env: str) -> Iterator[System]:
    """A worker of jobs, with `env` to make it sly."""
    with session.lane(schema=job_workers.SCHEMA, topics={"done": 1}) as lane:
        sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
        real = {"REAL_POSTGRES": lane.postgres, "REAL_KAFKA": lane.kafka, "REAL_PORT": sink.url.rpartition(":")[2]}
        told = {"TOPIC": "{topics[done]}", "HTTP_URL": sink.url}
        with System(
            lane,
            workers=[Worker("w", job_workers.work, env={**real, **told, **env})],
            workload=two_jobs,
            settled=[no_rows("open_jobs")],
            invariants=[nothing_lost(sink.ledger)],
            grace=0.2,
        ) as system:
            yield system


def test_every_effect_is_a_point(onecharge: Session) -> None:
    """A recording has each effect of each key once, in the order of the run, and the audit has counted all of them."""
    with jobs(onecharge) as system:
        recording = system.record()
    assert recording.reasons == ()
    assert list(recording.points) == [f"w~0/{site}[key-{n}]#1" for n in (1, 2) for site in SITES]
    assert (recording.background, recording.drifting) == ((), ())
    assert "8 transactions, 4 messages, 4 ledger records" in recording.audited


@pytest.mark.parametrize(
    ("around", "told"),
    [
        ("postgres", r"transaction \d+ was committed and no effect explains it: 1 INSERT public\.log"),
        ("kafka", r"done/0 has messages that no produce explains, at offset 1, 3, 5 and 1 more"),
        ("offsets", r"group .*\.sly stands at 1 in .*done/0, and no commit of an offset explains it"),
        ("http", r"sink\.jsonl has 2 records of .*, for 1 requests seen"),
    ],
)
def test_hole_around_the_wire(onecharge: Session, around: str, told: str) -> None:
    """What a worker does over a connection of its own, closed again at once, is found by the audit, and said."""
    with jobs(onecharge, AROUND=around) as system:
        sweep = system.sweep()
    assert any(re.search(told, reason) for reason in sweep.reasons), sweep.reasons
    assert (sweep.status, sweep.verdicts) == ("unknown", [])


@pytest.mark.parametrize(
    ("blind", "told"),
    [
        ("postgres", "no effect explains it: 1 UPDATE public.jobs"),
        ("kafka", "has messages that no produce explains"),
        ("http", "has 1 records of"),
    ],
)
def test_hole_in_the_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blind: str, told: str) -> None:
    """A write that the wire takes for nothing is found by the audit."""
    monkeypatch.setattr(client, "_MAIN", "tests.chaos.blind_wire")
    monkeypatch.setenv("BLIND", blind)
    with Session(tmp_path, directory=Path.cwd()) as session, jobs(session) as system:
        recording = system.record()
    assert any(told in reason for reason in recording.reasons), recording.reasons


def test_names_that_stay(onecharge: Session) -> None:
    """Recordings of the same workload have the same points, however often it is recorded."""
    with jobs(onecharge) as system:
        assert len({tuple(sorted(system.record().points)) for _ in range(5)}) == 1


def test_point_that_no_recording_shows(onecharge: Session) -> None:
    """Once a system was recorded, a schedule that begins at an unknown point is refused with the nearest one."""
    with jobs(onecharge) as system:
        system.record()
        with pytest.raises(UnknownName, match=r"did you mean 'w~0/http\.post\[key-2\]#1'"):
            system.drill("w/http.post[key-3]#1:crash-before")
        system.drill("w/http.post[key-2]#1:crash-before").require_holds()


def test_site_that_nothing_has(onecharge: Session) -> None:
    """A kind of effect that is misspelt is refused with the nearest one, also where nothing was recorded."""
    with jobs(onecharge) as system, pytest.raises(UnknownName, match=r"did you mean 'postgres\.commit'"):
        system.drill("w/postgres.comit#1:crash-before")


def test_fault_on_a_trusted_worker(onecharge: Session) -> None:
    """A trusted worker is never broken, and a schedule that would is refused."""
    with jobs(onecharge) as system, pytest.raises(ChaosError, match="sink is trusted"):
        system.drill("sink/http.post#1:crash-before")


def test_invariant_that_raises(onecharge: Session) -> None:
    """A check that raises decides nothing, in a drill and in a sweep; what it raised is said."""

    def check(_keys: Sequence[str]) -> list[Violation]:
        raise ZeroDivisionError

    with jobs(onecharge) as system:
        broken = Invariant("broken", check, system.ledgers[0], final=True)
        system.invariants = (broken,)
        verdict = system.drill("w/http.post[key-1]#1:crash-before")
        sweep = system.sweep()
    assert (verdict.status, sweep.status) == ("unknown", "unknown")
    assert any("ZeroDivisionError" in reason for reason in verdict.reasons)
    assert any("ZeroDivisionError" in reason for reason in sweep.reasons)
    with pytest.raises(Undecided):
        sweep.require_holds()


def test_settle_that_never_comes(onecharge: Session) -> None:
    """A system that is never done is unknown, with what it still had to do and the ends of its logs."""
    with jobs(onecharge) as system:
        system.settled, system.within = (Condition("never", lambda _lane: "always something"),), 1.0
        verdict = system.drill("w/http.post[key-1]#1:crash-before")
        processes = [process for process in system.lane.supervisor.processes if process.exit is None]
    assert verdict.status == "unknown"
    assert any("last seen: always something" in reason for reason in verdict.reasons)
    assert any("-w.0.log" in reason for reason in verdict.reasons)
    assert all(process.exit is not None for process in processes if process.name.endswith(("-w.0", "-sink.0")))


def test_tls_that_is_demanded(onecharge: Session) -> None:
    """A worker that insists on encryption gets no connection; nothing holds then, and its log says why."""
    with jobs(onecharge, MORE="?sslmode=require") as system:
        system.within = 1.0
        verdict = system.drill()
    assert verdict.status == "unknown"
    assert any("server does not support SSL" in reason for reason in verdict.reasons)


def test_later_fault_that_is_not_reached(onecharge: Session) -> None:
    """A fault whose point an earlier one has made impossible is counted apart, and the rest is judged."""
    with jobs(onecharge) as system:
        verdict = system.drill("w/http.post[key-1]#1:crash-before; w/http.post[key-1]#2:crash-before")
    verdict.require_holds()
    assert [fired.fault for fired in verdict.fired] == ["w~0/http.post[key-1]#1:crash-before"]
    assert [str(fault) for fault in verdict.not_reached] == ["w~0/http.post[key-1]#2:crash-before"]
    assert "not reached" in verdict.story()


def test_earlier_fault_that_is_not_reached(onecharge: Session) -> None:
    """A fault that did not fire before one that did is no shorter schedule: nothing is proven."""
    with jobs(onecharge) as system:
        verdict = system.drill("w/http.post[key-1]#2:crash-before; w/http.post[key-1]#1:crash-before")
    assert verdict.status == "unknown"
    assert "did not fire" in verdict.reasons[0]


def test_history_is_kept(onecharge: Session) -> None:
    """Each drill is appended to the lane's history, from its beginning to its verdict, one JSON object a line."""
    with jobs(onecharge) as system:
        system.drill().require_holds()
        system.drill("w/postgres.commit[key-1]#1:lose-reply").require_holds()
        events = list(read(system.lane.files / "history.jsonl"))
    assert [event.schedule for event in events if isinstance(event, Began)] == [
        "",
        "w~0/postgres.commit[key-1]#1:lose-reply",
    ]
    assert [event.status for event in events if isinstance(event, Judged)] == ["holds", "holds"]
    asked = [event for event in events if isinstance(event, Asked) and "/kafka." in event.points[0]]
    assert [event.points[1] for event in asked[:2]] == ["w~0/kafka.produce[key-1]#1", "w~0/kafka.produce[key-2]#1"]


def test_database_that_cannot_be_audited(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a slot cannot be had, the denominator is not audited, so nothing is proven; it is said what it takes."""
    monkeypatch.setattr("chaos.audit._PLUGIN", "no_such_plugin")
    with jobs(onecharge) as system:
        recording = system.record()
    [reason] = recording.reasons
    assert "cannot be audited" in reason
    assert "wal_level = logical" in reason


def test_no_slot_is_left(onecharge: Session) -> None:
    """A recording leaves no replication slot behind, which would keep the server's log for ever."""
    with jobs(onecharge) as system:
        system.record()
        gone = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
        wait_until("the slot to be gone", lambda: system.lane.look(gone) == [(0,)], Deadline(10))


def test_a_drill_is_over_when_the_wire_was_heard_out(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the wire was about to tell when everything seemed to be done is waited for."""
    with jobs(onecharge) as system:
        system.drill().require_holds()
        told: list[bool] = []
        heard, outstanding = system.crew.hear_out, system.outstanding
        asked: list[int] = []

        def hear_out() -> None:
            heard()
            if not told:  # an effect about a key was on its way
                armed = system.crew._armed
                assert armed is not None
                armed._moves += 1
                told.append(True)

        monkeypatch.setattr(system.crew, "hear_out", hear_out)

        def look() -> str:
            asked.append(len(told))
            return outstanding()

        monkeypatch.setattr(system, "outstanding", look)
        system.drill().require_holds()
    assert asked[-1] == len(told) == 1
