"""A call that never returns ends its process; one that does, or a process that stood still, does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

SECONDS = 0.5
PATIENCE_S = 20.0
PROGRAM = f"""
import sys, time
from pipeline.runtime import Watchdog, begin
begin("worker")
watchdog = Watchdog("Kafka has not let a commit return", {SECONDS})
for seconds in map(float, sys.argv[1:]):
    with watchdog:
        print("began", flush=True)
        time.sleep(seconds)
    print("returned", flush=True)
"""


def process(*calls: float) -> subprocess.Popen[str]:
    """One that makes calls of so many seconds each."""
    argv = [sys.executable, "-c", PROGRAM, *map(str, calls)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_call_that_never_returns() -> None:
    """The process ends with code 1, and its log says what did not return, and for how long."""
    out, err = process(PATIENCE_S).communicate(timeout=PATIENCE_S)
    assert out == "began\n"
    assert "Kafka has not let a commit return for 0.5 s. Ending: this client will never work again." in err


def test_calls_that_return() -> None:
    """Many calls together may take as long as they like."""
    one = process(*[SECONDS / 5] * 10)
    out, _ = one.communicate(timeout=PATIENCE_S)
    assert (one.returncode, out.count("returned")) == (0, 10)


def test_a_process_that_stood_still() -> None:
    """Whoever was stopped in the middle of a call has lost no time by it."""
    one = process(SECONDS / 5)
    assert one.stdout is not None
    assert one.stdout.readline() == "began\n"
    os.kill(one.pid, signal.SIGSTOP)
    time.sleep(3 * SECONDS)
    os.kill(one.pid, signal.SIGCONT)
    out, _ = one.communicate(timeout=PATIENCE_S)
    assert (one.returncode, out) == (0, "returned\n")
