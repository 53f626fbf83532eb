"""What /proc says of processes, whoever has started them."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from chaos.waiting import Deadline, wait_until

_STOP_S = 1.0


def state(pid: int) -> str:
    """R, S, T, Z and so on; X for one that is gone."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return "X"
    return told.rpartition(") ")[2][0]  # a process may call itself anything


def alive(pid: int) -> bool:
    """Whether it may still do something; who is dead and unburied may not."""
    return state(pid) not in "ZX"


def children(pid: int) -> list[int]:
    """Of all its threads."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # that thread, or the process, has ended
            found += map(int, task.read_text(encoding="ascii").split())
    return found


def family(pid: int) -> list[int]:
    """A process and all that descend from it, parents first."""
    return [pid, *(one for child in children(pid) for one in family(child))]


def freeze(pid: int) -> list[int]:
    """Stop a process, then its children, that none is born meanwhile; their ids, parents first."""
    send(pid, signal.SIGSTOP)
    wait_until(f"process {pid} to stand still", lambda: state(pid) in "TZX", Deadline(_STOP_S), every=0.001)
    return [pid, *(one for child in children(pid) for one in freeze(child))]


def send(pid: int, number: int) -> None:
    """Send a signal to a process, if it is there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def require_gone(pids: list[int], whose: str, deadline: Deadline) -> None:
    """Wait until none of them may do anything any more.

    Raises:
        NotInTime: one may.
    """
    what = f"all processes of {whose} to be gone"
    wait_until(what, lambda: [pid for pid in pids if alive(pid)], deadline, accept=lambda left: not left)
