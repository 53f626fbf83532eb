"""What /proc says of processes, whoever has started them."""

from __future__ import annotations

import contextlib
from pathlib import Path


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
