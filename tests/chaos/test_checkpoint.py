"""A worker that is armed waits at its checkpoints, one that is not does not; killed there, it has not gone on."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chaos.waiting import Deadline
from tests.chaos.owner import until

if TYPE_CHECKING:
    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

PYTHON = """
from chaos.checkpoint import checkpoint
print("before", flush=True)
checkpoint("w.held")
print("after", flush=True)
"""
# The same without this library: what a worker in any language would do.
FOREIGN = """
import os, socket
wire = socket.socket(socket.AF_UNIX)
wire.connect(os.environ["ONECHARGE_CHECKPOINTS"])
wire.sendall(os.environ["ONECHARGE_WORKER"].encode() + b"\\n")
print("before", flush=True)
wire.sendall(b"w.held\\n")
assert wire.recv(1) == b"\\n"
print("after", flush=True)
"""
THREADS = """
import threading
from chaos.checkpoint import checkpoint
held = threading.Thread(target=lambda: (checkpoint("w.held"), print("after", flush=True)))
held.start()
for _ in range(3):
    checkpoint("w.free")
print("free", flush=True)
held.join()
"""


FORK = """
import os
from chaos.checkpoint import checkpoint
checkpoint("w.parent")
if os.fork() == 0:
    checkpoint("w.held")
    print("after", flush=True)
    os._exit(0)
input()  # until the child is held
for _ in range(3):
    checkpoint("w.parent")
print("free", flush=True)
os.wait()
"""


class Listener:
    """Hears arrivals, and holds those at ``w.held`` if told so."""

    def __init__(self, supervisor: Supervisor, *, holds: bool) -> None:
        self.arrived: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.pids: list[int] = []
        self._holds = holds
        supervisor.listeners["lane"] = self._hear

    def _hear(self, worker: str, checkpoint: str, pid: int) -> bool:
        self.pids.append(pid)
        self.arrived.put((worker, checkpoint))
        return checkpoint != "w.held" or not self._holds

    def next(self) -> tuple[str, str]:
        """The next arrival."""
        return self.arrived.get(timeout=10)


def start(supervisor: Supervisor, source: str) -> Process:
    """A worker with its checkpoints armed."""
    env = {**os.environ, **supervisor.checkpoint_environment("lane/w.0~0")}
    return supervisor.spawn("w", [sys.executable, "-c", source], env=env)


def test_unarmed() -> None:
    """Without a harness a checkpoint does nothing and waits for nobody."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ONECHARGE")}
    ended = subprocess.run([sys.executable, "-c", PYTHON], env=env, capture_output=True, timeout=20, check=True)

    assert ended.stdout == b"before\nafter\n"


@pytest.mark.parametrize("source", [PYTHON, FOREIGN], ids=["python", "foreign"])
def test_let_go(supervisor: Supervisor, source: str) -> None:
    """An armed worker announces its arrival under its name and goes on when it may."""
    listener = Listener(supervisor, holds=False)
    worker = start(supervisor, source)

    assert listener.next() == ("w.0~0", "w.held")
    assert worker.wait(Deadline(10)).status == 0
    assert worker.log.read_text() == "before\nafter\n"


@pytest.mark.parametrize("source", [PYTHON, FOREIGN], ids=["python", "foreign"])
def test_killed_while_held(supervisor: Supervisor, source: str) -> None:
    """A worker killed while it is held has done all that precedes the checkpoint and nothing that follows."""
    listener = Listener(supervisor, holds=True)
    worker = start(supervisor, source)
    assert listener.next() == ("w.0~0", "w.held")
    assert listener.pids == [worker.pid]
    assert worker.exit is None

    assert str(worker.kill()) == "was ended by SIGKILL"

    assert worker.log.read_text() == "before\n"


def test_held_thread_holds_nobody_else(supervisor: Supervisor) -> None:
    """While one thread is held at its checkpoint, the others pass theirs."""
    listener = Listener(supervisor, holds=True)
    worker = start(supervisor, THREADS)

    arrived = sorted(listener.next() for _ in range(4))

    assert arrived == [("w.0~0", "w.free")] * 3 + [("w.0~0", "w.held")]
    until(lambda: worker.log.read_text() == "free\n")
    assert worker.exit is None


def test_held_child_holds_nobody_else(supervisor: Supervisor) -> None:
    """A worker's child that is held does not take the leave that its parent is given, nor hold the parent back."""
    listener = Listener(supervisor, holds=True)
    go_on = supervisor.run_dir / "go-on"
    os.mkfifo(go_on)
    worker = start(supervisor, FORK.replace("input()", f"open({str(go_on)!r}).read()"))
    assert [listener.next()[1] for _ in range(2)] == ["w.parent", "w.held"]
    go_on.write_text("")

    assert [listener.next()[1] for _ in range(3)] == ["w.parent"] * 3
    until(lambda: worker.log.read_text() == "free\n")
    assert listener.pids[0] == listener.pids[2] == worker.pid != listener.pids[1]
    assert worker.exit is None


def test_nobody_listens(supervisor: Supervisor) -> None:
    """Where no drill listens, everybody may go on."""
    worker = start(supervisor, PYTHON)

    assert worker.wait(Deadline(10)).status == 0
    assert worker.log.read_text() == "before\nafter\n"


def test_garbage_is_harmless(supervisor: Supervisor) -> None:
    """What is no text, and a worker that ends in the middle of a line, disturb nobody else."""
    listener = Listener(supervisor, holds=False)
    garbage = 'wire.sendall(b"\\xff\\xfe\\nlane")'
    start(supervisor, FOREIGN.replace('wire.sendall(b"w.held\\n")', garbage)).wait(Deadline(10))
    worker = start(supervisor, PYTHON)

    assert worker.wait(Deadline(10)).status == 0
    assert listener.next() == ("w.0~0", "\N{REPLACEMENT CHARACTER}" * 2)
    assert listener.next() == ("w.0~0", "w.held")
