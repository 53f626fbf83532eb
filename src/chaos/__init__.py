"""Prove that systems built from real workers, Postgres and Kafka survive crashes.

Everything public is here, and each name is imported when it is first used, so that ``import chaos`` costs nothing.
What a worker under test may need is apart: ``from chaos.checkpoint import checkpoint``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chaos.armed import Fired
    from chaos.conditions import Condition, group_drained, no_rows
    from chaos.drill import Run, Verdict
    from chaos.errors import (
        ChaosError,
        MissingPart,
        NotHolding,
        NotInTime,
        PortTaken,
        ProcessDied,
        ServerGone,
        Undecided,
        UnknownName,
        Violated,
        WrongChecksum,
    )
    from chaos.exploration import Exploration
    from chaos.explored import explore
    from chaos.invariants import (
        Invariant,
        Ledger,
        Violation,
        no_effect_without_cause,
        nothing_lost,
        one_effect_per_key,
        order_per_key,
    )
    from chaos.lane import Lane
    from chaos.lanes import Lanes
    from chaos.recording import Recording
    from chaos.schedule import Fault, Schedule
    from chaos.session import Session
    from chaos.strategies import schedules
    from chaos.sweep import Sweep
    from chaos.system import System
    from chaos.worker import Worker

_HOMES = {
    "chaos.conditions": ("Condition", "group_drained", "no_rows"),
    "chaos.armed": ("Fired",),
    "chaos.drill": ("Run", "Verdict"),
    "chaos.errors": (
        "ChaosError",
        "MissingPart",
        "NotHolding",
        "NotInTime",
        "PortTaken",
        "ProcessDied",
        "ServerGone",
        "Undecided",
        "UnknownName",
        "Violated",
        "WrongChecksum",
    ),
    "chaos.exploration": ("Exploration",),
    "chaos.explored": ("explore",),
    "chaos.invariants": (
        "Invariant",
        "Ledger",
        "Violation",
        "no_effect_without_cause",
        "nothing_lost",
        "one_effect_per_key",
        "order_per_key",
    ),
    "chaos.lane": ("Lane",),
    "chaos.lanes": ("Lanes",),
    "chaos.recording": ("Recording",),
    "chaos.schedule": ("Fault", "Schedule"),
    "chaos.session": ("Session",),
    "chaos.strategies": ("schedules",),
    "chaos.sweep": ("Sweep",),
    "chaos.system": ("System",),
    "chaos.worker": ("Worker",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [  # noqa: RUF022 - in the order of _HOMES; a test compares the two
    "Condition",
    "group_drained",
    "no_rows",
    "Fired",
    "Run",
    "Verdict",
    "ChaosError",
    "MissingPart",
    "NotHolding",
    "NotInTime",
    "PortTaken",
    "ProcessDied",
    "ServerGone",
    "Undecided",
    "UnknownName",
    "Violated",
    "WrongChecksum",
    "Exploration",
    "explore",
    "Invariant",
    "Ledger",
    "Violation",
    "no_effect_without_cause",
    "nothing_lost",
    "one_effect_per_key",
    "order_per_key",
    "Lane",
    "Lanes",
    "Recording",
    "Fault",
    "Schedule",
    "Session",
    "schedules",
    "Sweep",
    "System",
    "Worker",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        msg = f"module 'chaos' has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
