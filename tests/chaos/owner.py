"""Test runs in processes of their own, to be killed, and what is left of them afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

ROOT = Path(__file__).parents[2]
MARK = "ONECHARGE_TEST_OWNER"
_PATIENCE_S = 30.0
# What a script finds when it runs: a supervisor, and a way to say what it has come to.
_BEFORE = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
from pathlib import Path
from chaos.workers.supervisor import Supervisor
def tell(**facts): print(json.dumps(facts), flush=True)
"""


def until(condition: Callable[[], Any], within: float = _PATIENCE_S) -> Any:
    """Wait until `condition` returns something true, and return that."""
    deadline = time.monotonic() + within
    while not (result := condition()):
        assert time.monotonic() < deadline, f"waited {within} s in vain"
        time.sleep(0.005)
    return result


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs; what is dead and only not yet waited for does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def marked(mark: str) -> list[psutil.Process]:
    """All living processes whose environment has the text `mark`, wherever they belong now."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if mark.encode() in (directory / "environ").read_bytes():
                found.append(psutil.Process(int(directory.name)))
    return [process for process in found if is_alive(process)]


class Owner:
    """A process that runs a script with `Supervisor`, and all processes that come from it."""

    def __init__(self, script: str, directory: Path, *, env: Mapping[str, str] | None = None, **more: Any) -> None:
        self.mark = f"{MARK}={uuid.uuid4().hex}"
        name, value = self.mark.split("=")
        environment = {**os.environ, "LOGS": str(directory / "logs"), **(env or {}), name: value}
        python = more.pop("python", sys.executable)
        self.errors = directory / "owner.err"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [python, "-c", _BEFORE + script],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                **more,
            )
        self.descendants: set[psutil.Process] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        until(lambda: not self.left())

    def told(self) -> dict[str, Any]:
        """What the script tells next."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        facts: dict[str, Any] = json.loads(line)
        return facts

    def end(self, number: int) -> None:
        """Remember all that comes from it, send it a signal, and wait until it is gone itself."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.descendants |= set(psutil.Process(self.process.pid).children(recursive=True))
        self.process.send_signal(number)
        self.process.wait(_PATIENCE_S)

    def left(self) -> set[psutil.Process]:
        """The processes that are still there."""
        alive = {process for process in self.descendants if is_alive(process)}
        return alive | {process for process in marked(self.mark) if process.pid != self.process.pid}
