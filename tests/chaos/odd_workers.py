"""Workers of a queue made of files, each with something odd about it that a drill has to notice or survive.

A job is a file ``KEY.job`` in the lane's directory. Working on it appends ``{"key": KEY, "effect": …}`` to the ledger,
with an effect only the first time, as a service would that recognises a repeated request.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from chaos.checkpoint import checkpoint


def correct() -> None:
    """Work on each job, then remove it."""
    while True:
        for job in _jobs():
            _work(job)


def exits_on_restart() -> None:
    """Works until it is killed; its successors do not start."""
    _exit_unless_first(1)
    correct()


def exits_afterwards() -> None:
    """Works on one job, and ends with code 3 when the drill of that has been judged."""
    while not (jobs := _jobs()):
        time.sleep(0.001)
    _work(jobs[0])
    time.sleep(0.1)
    sys.exit(3)


def exits_after_each() -> None:
    """Works on one job and ends with code 4."""
    while not (jobs := _jobs()):
        time.sleep(0.001)
    _work(jobs[0])
    sys.exit(4)


def repeats_late() -> None:
    """Takes effect once more a moment after all is done."""
    while True:
        for job in _jobs():
            _work(job)
            threading.Timer(0.15, _take_effect, (job.stem, True)).start()


def slow_last_step() -> None:
    """Arrives at its last checkpoint a moment after its job is seen to be done."""
    while True:
        for job in _jobs():
            checkpoint("w.taken")
            _take_effect(job.stem)
            job.unlink()
            time.sleep(0.01)
            checkpoint("w.removed")


def two_threads() -> None:
    """Another thread arrives at a checkpoint of its own all the time."""

    def other() -> None:
        while True:
            checkpoint("w.other")
            time.sleep(0.001)

    threading.Thread(target=other, daemon=True).start()
    correct()


def in_a_session_of_its_own() -> None:
    """The worker is a child that has left the process group of what was started."""
    code = "from tests.chaos.odd_workers import correct; correct()"
    subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
        check=False,
    )


def _exit_unless_first(code: int) -> None:
    if not os.environ["ONECHARGE_WORKER"].endswith("~0"):
        sys.exit(code)


def _jobs() -> list[Path]:
    found = sorted(Path(os.environ["FILES"]).glob("*.job"))
    if not found:
        time.sleep(0.001)
    return found


def _work(job: Path) -> None:
    checkpoint("w.taken")
    _take_effect(job.stem)
    checkpoint("w.done")
    job.unlink()
    checkpoint("w.removed")


def _take_effect(key: str, effect: bool | None = None) -> None:  # noqa: FBT001 - a stand-in for a service's reply
    ledger = Path(os.environ["FILES"], "ledger.jsonl")
    if effect is None:
        effect = not ledger.exists() or f'"{key}"' not in ledger.read_text()
    with ledger.open("a") as file:
        file.write(json.dumps({"key": key, "effect": effect}) + "\n")


def forks_heavy_children() -> None:
    """Has two children that share its listener, and so much memory that the kernel needs a while to take it away."""
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as listener:
        for _ in range(2):
            if os.fork() == 0:
                weight = bytearray(100 << 20)
                signal.pause()
                del weight
        while True:
            listener.accept()[0].close()
