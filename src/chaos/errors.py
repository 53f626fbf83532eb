"""Everything the library raises on purpose.

::

    ChaosError
    ├── MissingPart       a program, package or address that is needed is not there
    ├── WrongChecksum     a downloaded file is not the one that was asked for
    ├── NotInTime         what was waited for did not come; also a TimeoutError
    ├── ProcessDied       a server or worker ended by itself
    ├── PortTaken         somebody listens where a server is to come back
    ├── ServerGone        a server that faults are carried out with cannot be spoken to
    ├── UnknownName       a name nobody knows, with the nearest one that is known
    └── NotHolding        a drill's verdict is not `holds`; also an AssertionError
        ├── Violated      an invariant was broken
        └── Undecided     the run proves nothing, and says why

Each carries its facts as attributes; the message is made of them.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from chaos.drill import Verdict
    from chaos.exploration import Exploration
    from chaos.sweep import Sweep
    from chaos.workers.process import Exit

    Told: TypeAlias = Verdict | Sweep | Exploration  # what is told of: each has a status, a schedule, a story


class ChaosError(Exception):
    """Base of all errors this library raises on purpose."""


class MissingPart(ChaosError):
    """Something needed to run is not on this machine."""

    def __init__(self, part: str, *, looked_for: Sequence[str], remedy: str) -> None:
        self.part, self.looked_for, self.remedy = part, tuple(looked_for), remedy
        super().__init__(f"{part} is missing: looked for {', then '.join(looked_for)}. {remedy}")


class WrongChecksum(ChaosError):
    """A downloaded file's SHA-256 differs from the locked one."""

    def __init__(self, file: str, *, expected: str, found: str) -> None:
        self.file, self.expected, self.found = file, expected, found
        super().__init__(
            f"{file} has the wrong SHA-256: expected {expected}, found {found}. Nothing of it was kept; "
            "if it fails again, something between here and the repository changes the file."
        )


class NotInTime(ChaosError, TimeoutError):
    """What was waited for did not come in time.

    `what` was awaited, `seconds` were given, `last` is what was seen last.
    """

    def __init__(self, what: str, *, seconds: float, last: object, logs: Iterable[Path] = ()) -> None:
        self.what, self.seconds, self.last, self.logs = what, seconds, last, tuple(logs)
        super().__init__(f"waited {seconds:g} s for {what}; last seen: {last}{tails(self.logs)}")


class ProcessDied(ChaosError):
    """A process that should be running ended by itself."""

    def __init__(self, name: str, *, how: Exit | None, log: Path) -> None:
        self.name, self.how, self.log = name, how, log
        super().__init__(f"{name} {how or 'is gone'}{tails([log])}")


class PortTaken(ChaosError):
    """Somebody else listens at the address at which a server, or a worker, is to listen.

    `taker` says who, as ``redis-server (pid 4711)``; it is empty where that cannot be seen.
    """

    def __init__(self, address: str, *, server: str, taker: str) -> None:
        self.address, self.server, self.taker = address, server, taker
        super().__init__(
            f"{server} cannot be started at {address}, which {taker or 'a process of another user'} has taken: "
            "end that, or start the run again, which leases other ports."
        )


class ServerGone(ChaosError):
    """A server that faults are carried out with cannot be spoken to."""

    def __init__(self, server: str, address: str, *, why: str, remedy: str) -> None:
        self.server, self.address, self.why, self.remedy = server, address, why, remedy
        super().__init__(f"{server} at {address} cannot be spoken to: {why}. {remedy}")


class UnknownName(ChaosError, LookupError):
    """A name that nobody knows."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        nearest = difflib.get_close_matches(name, self.known, n=1)
        hint = f"did you mean {nearest[0]!r}?" if nearest else f"there is {', '.join(self.known) or 'none at all'}."
        super().__init__(f"no {kind} {name!r}: {hint}")


class NotHolding(ChaosError, AssertionError):
    """A drill, a sweep or an exploration did not end in `holds`."""

    def __init__(self, verdict: Told) -> None:
        self.verdict = verdict
        super().__init__(verdict.story(events=True))


class Violated(NotHolding):
    """An invariant was broken."""


class Undecided(NotHolding):
    """The run proves nothing: no fault fired, it did not settle, a worker died by itself, a check raised."""


def tail(log: Path, lines: int = 15) -> str:
    """The last `lines` lines of a log; empty when there is nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - 16_384))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def tails(logs: Iterable[Path]) -> str:
    """The ends of several logs, each under its path, ready to be appended to a message."""
    parts = [f"\n--- {log}\n{tail(log) or '(empty)'}" for log in logs]
    return "".join(parts)
