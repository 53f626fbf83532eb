"""Drills on real workers whose faults come at a bad time: each spoils its own drill at most, and the next is whole."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from chaos import Session, System, Worker, faults, one_effect_per_key
from chaos.waiting import Deadline, wait_until
from chaos.wire import client, messages
from tests.chaos import race_workers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos import Lane, Run
    from chaos.crew import Member
    from chaos.lane import Trusted
    from chaos.workers.process import Process


@dataclass
class Scene:
    """A system of one obedient worker, and what its next workload tells it to do."""

    lane: Lane
    sink: Trusted
    do: tuple[str, ...] = ()
    system: System = field(init=False)
    key: str = ""

    def workload(self, run: Run) -> None:
        """Have one effect that is the workload's own, and the worker do what it has to."""
        self.key = run.new_key()
        with urllib.request.urlopen(self.sink.url, b'{"tag": "%s", "n": 1}' % self.key.encode()) as reply:  # noqa: S310 - our own
            reply.read()
        run.accept(self.key)
        if self.do:
            run.post("/", {"do": self.do, "key": f"{self.key}'s"})
            wait_until("the worker to do it", self.seen, Deadline(10))

    def seen(self) -> bool:
        """Whether the worker has arrived anywhere in this drill, or cannot be seen."""
        armed = self.system.crew._armed
        return armed is None or bool(armed._sites or armed.troubles)

    def landed(self) -> int:
        """How much the worker has landed in the last drill."""
        return len(self.sink.ledger.of(f"{self.key}'s"))

    def alive(self) -> list[Process]:
        """The worker's processes that run."""
        return [one for one in self.lane.supervisor.processes if "-w.0" in one.name and one.exit is None]

    def require_whole(self) -> None:
        """A drill that breaks nothing holds, one that crashes does as well, and one process runs then."""
        self.do = ("POST",)
        verdict = self.system.drill("w/http.post#1:crash-after")
        assert verdict.status == "holds", verdict.story(events=True)
        assert self.landed() == 1
        [process] = self.alive()
        assert process is self.system.crew._members["w.0"].process
        member = self.system.crew._members["w.0"]
        assert (member.held, member.doomed) == (0, False)
        self.do = ()
        verdict = self.system.drill()
        assert verdict.status == "holds", verdict.story(events=True)


@contextlib.contextmanager
def scene(session: Session, *, named: str = "", **env: str) -> Iterator[Scene]:
    """A scene on a lane of its own."""
    with session.lane() as lane:
        sink = lane.trusted("sink", race_workers.sink, ledger="sink.jsonl", key="tag")
        made = Scene(lane, sink)
        url = sink.url.replace("127.0.0.1", named) if named else sink.url
        with contextlib.ExitStack() as stack:
            system = System(
                lane,
                workers=[Worker("w", race_workers.obedient, http=True, env={"HTTP_URL": url, **env})],
                workload=made.workload,
                settled=[],
                invariants=[one_effect_per_key(sink.ledger)],
                grace=0.05,
                within=5,
            )
            made.system = stack.enter_context(system)
            yield made


@pytest.mark.parametrize("fault", ["hold=30", "delay=30", "crash-late=30", "freeze=held,30"])
def test_fault_at_work_when_the_drill_ends(onecharge: Session, fault: str) -> None:
    """A fault still at work at the drill's end is said there, and neither credits nor breaks any drill after it."""
    with scene(onecharge) as made:
        made.do, made.system.within = ("POST",), 0.4
        verdict = made.system.drill(f"w/http.post#1:{fault}")
        assert verdict.status == "unknown"
        assert any("still at work when the drill ended" in reason for reason in verdict.reasons), verdict.reasons
        made.do, made.system.within = (), 5
        verdict = made.system.drill()
        assert (verdict.status, verdict.fired, verdict.reasons) == ("holds", [], [])
        verdict = made.system.drill("w/http.put#7:crash-after")
        assert (verdict.status, verdict.fired) == ("unknown", [])
        made.require_whole()


def test_two_kills_at_once(onecharge: Session) -> None:
    """Two kills of one worker that are due at once start one successor, and the one that was not done is said."""
    with scene(onecharge) as made:
        for _ in range(3):
            made.do = ("POST", "PUT")
            verdict = made.system.drill("w/http.post#1:crash-before; w/http.put#1:crash-before")
            assert len(verdict.fired) == 1
            assert len(verdict.not_reached) + len(verdict.reasons) == 1
            assert len(made.alive()) == 1
        made.require_whole()


@pytest.mark.parametrize(
    ("do", "schedule"),
    [("send and exit", "w/http.post#1:crash-before"), ("arrive", "w/point#1:crash-before")],
)
def test_worker_that_exits_where_it_is_to_be_killed(
    onecharge: Session, monkeypatch: pytest.MonkeyPatch, do: str, schedule: str
) -> None:
    """A worker that ends by itself at its fault's point makes the verdict unknown; it is back in the next drill."""
    with scene(onecharge) as made:
        cut, started = made.lane.links.cut, made.system.crew._started

        def when_gone(member: Member, life: int) -> Process:  # of who ends by itself, at once or a moment later
            process = started(member, life)
            made.lane.supervisor.wait_for(lambda: process.exit is not None, Deadline(10))
            return process

        def cut_late(label: str) -> None:  # of who waits at a checkpoint, which does not end by itself
            cut(label)
            [process] = made.alive()
            os.kill(process.pid, signal.SIGTERM)
            made.lane.supervisor.wait_for(lambda: process.exit is not None, Deadline(10))

        monkeypatch.setattr(made.lane.links, "cut", cut_late)
        monkeypatch.setattr(made.system.crew, "_started", when_gone)
        made.do = (do,)
        verdict = made.system.drill(schedule)
        assert verdict.status == "unknown"
        assert made.landed() == 0
        monkeypatch.undo()
        made.require_whole()
        (connections, _tasks) = made.lane.links.wire.do(messages.Count)
        assert int(connections) <= len(made.alive())


def test_raw_connection_is_told_in_each_drill(onecharge: Session) -> None:
    """A connection of which nothing can be seen makes every verdict unknown for as long as it is there."""
    with scene(onecharge) as made:
        made.do = ("raw",)
        for _ in range(3):
            verdict = made.system.drill()
            assert verdict.status == "unknown"
            assert "could not be seen" in verdict.reasons[0]
            made.do = ()


def test_frozen_while_it_starts(onecharge: Session) -> None:
    """A successor that is frozen at an effect of its own start is thawed, and the drill goes on."""
    with scene(onecharge, AT_START="1") as made:
        made.do, made.system.within = ("PUT",), 20
        began = time.monotonic()
        verdict = made.system.drill("w/http.put#1:crash-before; w~1/http.post#1:freeze=held,0.1")
        assert verdict.status == "holds", verdict.story(events=True)
        assert len(verdict.fired) == 2
        assert time.monotonic() - began < 5


def test_around_the_wire_by_name(onecharge: Session) -> None:
    """A worker that goes around the wire is found also where its service is known by a name."""
    with onecharge.lane() as lane:
        sink = lane.trusted("sink", race_workers.sink, ledger="sink.jsonl", key="tag")
        port = sink.url.rpartition(":")[2]
        lane.links.add_service(f"http://localhost:{port}")
        lane.links._services = {name: one for name, one in lane.links._services.items() if "localhost" in name}
        worker = Worker("w", race_workers.obedient, http=True, env={"HTTP_URL": sink.url})
        with System(
            lane, workers=[worker], workload=lambda _: None, settled=[], invariants=[one_effect_per_key(sink.ledger)]
        ):
            [found] = wait_until("the connection", lane.links.unseen, Deadline(10))
            assert f"w.0 is connected to 127.0.0.1:{port} directly" in found


@pytest.fixture
def third_party(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session whose wires know somebody else's fault."""
    monkeypatch.setattr(client, "_MAIN", "tests.chaos.race_workers")
    monkeypatch.setitem(faults._OURS, "theirs", "tests.chaos.race_workers:Theirs")
    faults.registered.cache_clear()
    with Session(tmp_path) as session:
        yield session
    faults.registered.cache_clear()
    faults.kind.cache_clear()


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("raise", "ValueError('theirs')"),
        ("kill,raise", "ValueError('theirs')"),
        ("kill,kill", "was being killed already"),
        ("freeze,raise", "ValueError('theirs')"),
        ("exit", "SystemExit(3)"),
        ("kill,exit", "SystemExit(3)"),
        ("for-ever", "still at work when the drill ended"),
        ("freeze,for-ever", "still at work when the drill ended"),
        ("kill,for-ever", "still at work when the drill ended"),
    ],
)
def test_third_partys_fault(third_party: Session, does: str, said: str) -> None:
    """A fault of a third party that goes wrong, in whatever way, breaks its own drill and no other."""
    with scene(third_party) as made:
        made.do, made.system.within = ("POST",), 0.5 if "for-ever" in does else 5
        verdict = made.system.drill(f"w/http.post#1:theirs={does}")
        assert verdict.status == "unknown"
        assert any(said in reason for reason in verdict.reasons), verdict.reasons
        if "kill" in does:
            assert made.landed() == 0
        else:
            wait_until("what it held to arrive", made.landed, Deadline(5))
        made.system.within = 5
        made.require_whole()


def test_third_partys_freeze_and_kill(third_party: Session) -> None:
    """A worker that is killed while it is frozen was killed, and needs no thaw."""
    with scene(third_party) as made:
        made.do = ("POST",)
        verdict = made.system.drill("w/http.post#1:theirs=freeze,kill")
        assert verdict.status == "holds", verdict.story(events=True)
        made.require_whole()
