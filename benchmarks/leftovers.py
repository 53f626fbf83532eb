"""What is left when a test run is SIGKILLed: `pytest -m drills`, killed at many moments of its life.

Each kill has a moment of its own, spread evenly with a little chance from 0.1 s to the end of a whole run, which is
measured first and which also warms the cache. The run and all that comes from it are followed in two ways: by walking
its descendants until the kill, and by a variable in its environment, which those keep who have left its family tree.

slowest_clean_s     from the kill until none of them was alive, its directory was gone and its ports were closed
processes_left_max  of those, the most that lived longer than 3 s
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from benchmarks.report import arguments, report

if TYPE_CHECKING:
    from collections.abc import Iterable

_SOONEST_S = 0.1
_ALLOWED_S = 3.0
_PATIENCE_S = 15.0
VARIABLE = "ONECHARGE_LEFTOVERS"
_PLACES = {Path("/dev/shm"), Path(tempfile.gettempdir())}  # noqa: S108 - where run directories are made


@dataclass
class Trail:
    """All that a test run has made and that was seen."""

    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    processes: set[psutil.Process] = field(default_factory=set)
    ports: set[int] = field(default_factory=set)
    directories: set[Path] = field(default_factory=set)

    def follow(self, run: psutil.Process) -> None:
        """Look at what the run has by now. Its files are told from other runs' by who has them as working directory."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self.processes |= set(run.children(recursive=True))
        for process in list(self.processes):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                words = [process.cwd(), *process.cmdline()]
                self.directories |= {found for word in words for found in _run_directories(word)}
        for process in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                self.ports |= _ports(process.net_connections("tcp"))

    def alive(self) -> set[psutil.Process]:
        """Those that are still there, by either way of knowing them."""
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if self.mark.encode() in (directory / "environ").read_bytes():
                    self.processes.add(psutil.Process(int(directory.name)))
        return {process for process in self.processes if _is_alive(process)}

    def open_ports(self) -> set[int]:
        """Its ports that somebody still listens on."""
        return self.ports & _listening()

    def segments(self) -> set[str]:
        """System V segments whose maker was one of its processes."""
        pids = {str(process.pid) for process in self.processes}
        rows = [line.split() for line in Path("/proc/sysvipc/shm").read_text(encoding="ascii").splitlines()[1:]]
        return {row[1] for row in rows if row[4] in pids}

    def left_directories(self) -> set[Path]:
        """Its run directories that are still there."""
        return {directory for directory in self.directories if directory.exists()}

    @property
    def clean(self) -> bool:
        """Whether nothing is left."""
        return not (self.alive() or self.open_ports() or self.left_directories())


@dataclass(frozen=True)
class Kill:
    """What one kill ended, and what was left: processes and the rest after 3 s, segments at the end."""

    after_s: float
    clean_s: float
    processes: int
    processes_left: int
    ports_left: int
    directories_left: int
    segments_left: int


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listening() -> set[int]:
    return _ports(psutil.net_connections("tcp"))


def _ports(connections: Iterable[Any]) -> set[int]:
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def _run_directories(text: str) -> set[Path]:
    """The run directory in a path or a word of a command line, if there is one."""
    parts = Path(text.rpartition("=")[2]).parts
    for count, part in enumerate(parts):
        if part.startswith("onecharge-") and Path(*parts[:count]) in _PLACES:
            return {Path(*parts[: count + 1])}
    return set()


def _start(trail: Trail, output: str) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "pytest", "-m", "drills", "tests/drills", "-q", "-p", "no:cacheprovider"]
    env = {**os.environ, VARIABLE: trail.mark}
    return subprocess.Popen([*argv, f"--onecharge-output={output}"], env=env, stdout=subprocess.DEVNULL)


def whole_run(output: str) -> float:
    """Seconds of a run that nobody kills."""
    began = time.monotonic()
    with _start(Trail(), output) as run:
        if run.wait() != 0:
            sys.exit("the drills fail when nobody kills them: nothing to measure")
    return time.monotonic() - began


def kill(after_s: float, output: str) -> Kill:
    """Start a run, SIGKILL it so many seconds later, and see what becomes of what it had started."""
    trail = Trail()
    began = time.monotonic()
    with _start(trail, output) as run:
        process = psutil.Process(run.pid)
        while time.monotonic() - began < after_s:
            trail.follow(process)
            time.sleep(max(0.0, min(0.05, after_s - (time.monotonic() - began))))
        trail.follow(process)
        count = len(trail.alive() - {process})
        run.send_signal(signal.SIGKILL)
        killed = time.monotonic()
        run.wait()
    while not trail.clean and time.monotonic() - killed < _ALLOWED_S:
        time.sleep(0.02)
    processes, ports, directories = trail.alive(), trail.open_ports(), trail.left_directories()
    while not trail.clean and time.monotonic() - killed < _PATIENCE_S:
        time.sleep(0.05)
    clean_s = time.monotonic() - killed
    left = (len(processes), len(ports), len(directories), len(trail.segments()))
    return Kill(after_s, clean_s, count, *left)


def main() -> None:
    """Kill, look, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="so many kills (default: 20)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="leftovers-") as output:
        whole = whole_run(output)
        print(f"a whole run takes {whole:.1f} s\n")
        print(" killed at   processes   clean after   left: processes  ports  directories  segments")
        kills = []
        for number in range(options.runs):
            moment = _SOONEST_S + (whole - _SOONEST_S) * (number + rng.random()) / options.runs
            one = kill(min(moment, whole), output)
            kills.append(one)
            print(
                f"{one.after_s:8.2f} s   {one.processes:9}   {one.clean_s:9.2f} s   {one.processes_left:15}  "
                f"{one.ports_left:5}  {one.directories_left:11}  {one.segments_left:8}",
                flush=True,
            )
    figures = {
        "kills": len(kills),
        "processes_left_max": max(one.processes_left for one in kills),
        "slowest_clean_s": max(one.clean_s for one in kills),
        "directories_left": sum(one.directories_left for one in kills),
        "segments_left": sum(one.segments_left for one in kills),
        "ports_left": sum(one.ports_left for one in kills),
        "processes_seen_max": max(one.processes for one in kills),
        "whole_run_s": whole,
    }
    print()
    report({name: float(value) for name, value in figures.items()}, options.json)


if __name__ == "__main__":
    main()
