"""Each kind of fault on each kind of effect, on real servers: what the worker saw, and what the servers have."""

from __future__ import annotations

import http.client
import json
import threading
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from chaos import ChaosError, Worker
from chaos.faults import registered
from chaos.schedule import Fault
from chaos.waiting import Deadline, wait_until
from chaos.wire import messages
from tests.chaos.wire import exact_workers, puppet
from tests.chaos.wire.exact import end_offset
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from chaos import Lane, Ledger, Session

SITES = {
    "write": "postgres.write",
    "simple_write": "postgres.write",
    "commit": "postgres.commit",
    "copy": "postgres.write",
    "produce": "kafka.produce",
    "post": "http.post",
}


@dataclass
class Stage:
    """A lane with a puppet, and a service that it posts to."""

    lane: Lane
    rig: Rig
    ledger: Ledger
    traces: Path
    worker: Worker
    number: int = 0

    def fresh(self, what: str = "") -> str:
        """A puppet that runs and, if it is told `what`, has its connection for that open; a new key."""
        for replica in range(self.worker.replicas):
            process = self.rig.processes.get(f"puppet.{replica}")
            if process is None or process.exit is not None:
                process = self.rig.start(self.worker, replica)
                self.lane.require_listening(self.worker, replica, process, Deadline(20))
            if what:
                assert self.tell(what, "warm-up-key", replica) == "done"
        self.traces.unlink(missing_ok=True)
        self.number += 1
        return f"key-{self.number:08}"

    def tell(self, what: str, key: str, replica: int = 0) -> str:
        """Have the puppet do something; what it says, or ``gone``."""
        url = f"http://{self.lane.port(self.worker, replica).address}/"
        request = urllib.request.Request(url, json.dumps({"what": what, "key": key}).encode())
        try:
            with urllib.request.urlopen(request, timeout=20) as reply:  # noqa: S310 - our own
                return str(json.load(reply)["said"])
        except (OSError, http.client.HTTPException):
            return "gone"

    def telling(self, what: str, key: str, replica: int = 0) -> tuple[threading.Thread, list[str]]:
        """The same, in the background."""
        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(self.tell(what, key, replica)))
        thread.start()
        return thread, said

    def landed(self, what: str, key: str) -> int:
        """How often what was done for a key has reached its server."""
        if what == "produce":
            return end_offset(self.lane, "puppet")
        if what == "post":
            return len(self.ledger.of(key))
        [(count,)] = self.lane.execute("SELECT count(*) FROM landed WHERE tag = %s", (key,))
        return int(count)

    def traced(self) -> list[str]:
        """What the puppet has left as traces."""
        return self.traces.read_text(encoding="utf-8").split() if self.traces.exists() else []


@pytest.fixture(scope="module")
def stage(onecharge: Session) -> Iterator[Stage]:
    """A lane with two puppets."""
    with onecharge.lane(schema="CREATE TABLE landed (tag text)", topics={"puppet": 1}) as lane:
        sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
        traces = lane.files / "traces"
        env = {"TOPIC": "{topics[puppet]}", "GROUP": "{lane}.g", "HTTP_URL": sink.url, "TRACES": str(traces)}
        worker = Worker("puppet", puppet.main, replicas=2, env=env, http=True)
        yield Stage(lane, Rig(lane), sink.ledger, traces, worker)


def difference(stage: Stage, what: str, key: str, do: Callable[[], None]) -> int:
    """How many effects there are more after `do`."""
    before = stage.landed(what, key)
    do()
    return stage.landed(what, key) - before


@pytest.mark.parametrize("what", SITES)
@pytest.mark.parametrize(("fault", "lands"), [("crash-before", 0), ("crash-after", 1)])
def test_crash(stage: Stage, what: str, fault: str, lands: int) -> None:
    """A killed worker runs nothing more, its server has the effect or not, and nothing of it is left there."""
    key = stage.fresh(what)
    stage.rig.arm(f"puppet/{SITES[what]}#1:{fault}")

    def crash() -> None:
        thread, said = stage.telling(what, key)
        fired = stage.rig.fired()
        thread.join()
        assert said == ["gone"]
        assert fired.killed
        assert fired.what.startswith("was ended by SIGKILL")

    assert difference(stage, what, key, crash) == lands
    assert stage.traced() == []
    stage.rig.disarm()


@pytest.mark.parametrize("what", SITES)
@pytest.mark.parametrize(("fault", "lands"), [("lose-request", 0), ("lose-reply", 1)])
def test_loss_by_reset(stage: Stage, what: str, fault: str, lands: int) -> None:
    """The client is told by its own error; a lost request took no effect on the server, a lost reply's did."""
    key = stage.fresh(what)
    stage.rig.arm(f"puppet/{SITES[what]}#1:{fault}")

    def lose() -> None:
        thread, said = stage.telling(what, key)
        stage.rig.fired()
        thread.join()
        assert said[0] not in {"done", "gone"}

    assert difference(stage, what, key, lose) == lands
    stage.rig.disarm()
    kill(stage)


@pytest.mark.parametrize("what", ["simple_write", "commit", "post"])
@pytest.mark.parametrize(("fault", "lands"), [("lose-request=silent", 0), ("lose-reply=silent", 1)])
def test_loss_in_silence(stage: Stage, what: str, fault: str, lands: int) -> None:
    """The client hears nothing, for as long as the schedule is armed; then its connection is reset."""
    key = stage.fresh(what)
    stage.rig.arm(f"puppet/{SITES[what]}#1:{fault}")
    thread, said = stage.telling(what, key)
    stage.rig.fired()
    assert stage.landed(what, key) == lands
    thread.join(0.2)
    assert thread.is_alive()
    stage.rig.disarm()
    thread.join()
    assert said[0] not in {"done", "gone"}
    assert stage.landed(what, key) == lands
    kill(stage)


@pytest.mark.parametrize(("how", "lands"), [("held", 0), ("delivered", 1)])
def test_freeze(stage: Stage, how: str, lands: int) -> None:
    """A frozen worker does nothing until another of its role has had such an effect; its request waits or does not."""
    key = stage.fresh("commit")
    stage.rig.arm(f"puppet/postgres.commit#1:freeze={how},10")
    thread, said = stage.telling("commit", key)
    order = stage.rig.wait("the freeze", lambda: stage.rig.all(messages.Order))
    assert order[0].what == "stop"
    if lands:
        wait_until("the frozen worker's row", lambda: stage.landed("commit", key), Deadline(5))
    thread.join(0.2)
    assert thread.is_alive()
    assert stage.landed("commit", key) == lands
    assert stage.tell("commit", "another-key", replica=1) == "done"
    assert "thawed when another had taken over" in stage.rig.fired().what
    thread.join()
    assert said == ["done"]
    assert stage.landed("commit", key) == 1
    stage.rig.disarm()


def test_hold(stage: Stage) -> None:
    """A request that is held arrives after another worker's."""
    key = stage.fresh("post")
    stage.rig.arm("puppet/http.post#1:hold=10")
    thread, said = stage.telling("post", key)
    stage.rig.wait("the effect", lambda: stage.rig.all(messages.Seen))
    assert stage.tell("post", f"{key}-b", replica=1) == "done"
    assert "after another of its kind" in stage.rig.fired().what
    thread.join()
    assert said == ["done"]
    [held], [other] = stage.ledger.of(key), stage.ledger.of(f"{key}-b")
    assert held.number > other.number
    stage.rig.disarm()


def test_crash_late(stage: Stage) -> None:
    """What is held is lost with the worker, what its other connection sent meanwhile is not."""
    key = stage.fresh("commit")
    assert stage.tell("post", "warm-up-key") == "done"
    stage.rig.arm("puppet/postgres.commit#1:crash-late=10")
    thread, said = stage.telling("commit", key)
    stage.rig.wait("the effect", lambda: stage.rig.all(messages.Seen))
    behind, _ = stage.telling("post", key)
    fired = stage.rig.fired()
    thread.join()
    behind.join()
    assert said == ["gone"]
    assert "another effect went through" in fired.what
    assert (stage.landed("commit", key), stage.landed("post", key)) == (0, 1)
    stage.rig.disarm()


def test_repeat(stage: Stage) -> None:
    """The service has the request twice, the client one reply."""
    key = stage.fresh("post")
    stage.rig.arm("puppet/http.post#1:repeat")
    assert stage.tell("post", key) == "done"
    stage.rig.fired()
    assert stage.landed("post", key) == 2
    assert stage.tell("post", f"{key}-b") == "done"
    stage.rig.disarm()


@pytest.mark.parametrize("what", SITES)
def test_delay(stage: Stage, what: str) -> None:
    """A delayed request arrives, and so much later."""
    key = stage.fresh(what)
    stage.rig.arm(f"puppet/{SITES[what]}#1:delay=0.2")
    began = time.monotonic()
    assert stage.tell(what, key) == "done"
    assert time.monotonic() - began > 0.2
    stage.rig.fired()
    assert stage.landed(what, key) > 0
    stage.rig.disarm()


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("commit", "40001", "SerializationFailure"),
        ("write", "40P01", "DeadlockDetected"),
        ("simple_write", "40001", "SerializationFailure"),
        ("post", "429", "RuntimeError: 429 1"),
        ("post", "503", "RuntimeError: 503 1"),
        ("produce", "NOT_ENOUGH_REPLICAS", "NOT_ENOUGH_REPLICAS"),
        ("commit_offset", "REBALANCE_IN_PROGRESS", "REBALANCE_IN_PROGRESS"),
    ],
)
def test_refuse(stage: Stage, what: str, error: str, said: str) -> None:
    """The client gets the genuine error, the server no effect, and the connection goes on as if nothing had been."""
    key = stage.fresh(what)
    site = SITES.get(what, "kafka.offset_commit")
    stage.rig.arm(f"puppet/{site}#1:refuse={error}")

    def be_refused() -> None:
        assert said in stage.tell(what, key)
        stage.rig.fired()

    if what == "commit_offset":
        be_refused()
    else:
        assert difference(stage, what, key, be_refused) == 0
    assert stage.tell(what, key) == "done"
    stage.rig.disarm()


def test_not_possible(stage: Stage) -> None:
    """A fault that cannot be done to an effect says why, and the effect goes its way."""
    key = stage.fresh("commit")
    for fault, reason in (("repeat", "only an HTTP request can"), ("refuse=NOT_COORDINATOR", "no SQLSTATE")):
        stage.rig.arm(f"puppet/postgres.commit#1:{fault}")
        assert stage.tell("commit", key) == "done"
        assert reason in stage.rig.failed()
    stage.rig.disarm()


@pytest.mark.parametrize("name", sorted(registered()))
def test_values(name: str) -> None:
    """Every kind refuses a value that means nothing to it, and says what it expects."""
    with pytest.raises(ChaosError, match="expected"):
        Fault.parse(f"a/b:{name}=nonsense-1")


def kill(stage: Stage) -> None:
    """End the puppets, so that the next test has fresh ones."""
    for process in stage.rig.processes.values():
        process.kill()
