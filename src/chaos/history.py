"""What happened in a drill, in order: one event a line of JSON.

Written for people and programs that come later: a report, a checker that is run again on an old run, a reader with
``jq``. Each event has a ``type``, and ``at``, Unix time in seconds of whoever saw it (the wire, for what is on it).
`read` turns a file back into events. A file holds the drills of a lane one after the other, each from its `Began` to
its `Judged`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class _Event(msgspec.Struct, frozen=True, tag_field="type", tag=str.lower, omit_defaults=True):
    at: float


class Began(_Event, frozen=True):
    """A drill began, under this schedule; empty text breaks nothing."""

    schedule: str

    def __str__(self) -> str:
        return f"began {self.schedule or 'without a fault'}"


class Named(_Event, frozen=True):
    """Points that are about `key` are named ``[alias]`` from here on."""

    key: str
    alias: str

    def __str__(self) -> str:
        return f"{self.alias} is {self.key}"


class Accepted(_Event, frozen=True):
    """The system answers for a key from here on."""

    key: str

    def __str__(self) -> str:
        return f"accepted {self.key}"


class Arrived(_Event, frozen=True):
    """A process of `worker` came to a checkpoint."""

    point: str
    worker: str

    def __str__(self) -> str:
        return self.point


class Asked(_Event, frozen=True):
    """An effect of `worker` was on the wire, and not let through yet.

    `points` are its names, the one by count first. `connection` and `effect` are what its `Replied` has too. `evidence`
    is what can be found of it in the server (`chaos.audit`). `stirs` counts what the worker had sent until then that
    was no effect and may have changed something all the same: where two effects have the same, nothing lies between.
    """

    points: tuple[str, ...]
    worker: str
    connection: int
    effect: int
    evidence: tuple[str, ...] = ()
    stirs: int = 0
    repeats: bool = False  # it commits offsets, and none that is new

    @property
    def number(self) -> tuple[int, int]:
        """What its `Replied` has too."""
        return self.connection, self.effect

    @property
    def names(self) -> tuple[str, ...]:
        """Its names by keys where there are any, else the one by count."""
        return self.points[1:] or self.points

    def __str__(self) -> str:
        return " = ".join(self.points)


class Replied(_Event, frozen=True):
    """What became of an effect: done, refused, unclear, sent (nobody replies to it), lost (by a fault)."""

    point: str
    outcome: str
    connection: int
    effect: int
    evidence: tuple[str, ...] = ()

    @property
    def number(self) -> tuple[int, int]:
        """What its `Asked` has too."""
        return self.connection, self.effect

    def __str__(self) -> str:
        return f"{self.point} {self.outcome}"


class Broke(_Event, frozen=True):
    """A fault was carried out in `worker`; `what` says how that ended, `alone` that nobody came that it waited for."""

    fault: str
    worker: str
    what: str
    alone: bool = False

    def __str__(self) -> str:
        return f"{self.fault}: {self.worker} {self.what}"


class Spoiled(_Event, frozen=True):
    """A link fault began: what goes over these links (``payment.0-kafka``) meets it from here on."""

    fault: str
    links: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.fault}: {', '.join(self.links)} bad"


class Healed(_Event, frozen=True):
    """These links are whole again, by a round trip over each; it took so many `seconds` to make and to prove."""

    fault: str
    links: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        return f"{self.fault}: {', '.join(self.links)} whole again, verified in {self.seconds:.3f} s"


class Spared(_Event, frozen=True):
    """A fault was reached and not carried out; `unfit`: it never could be, there."""

    fault: str
    reason: str
    unfit: bool = False

    def __str__(self) -> str:
        return f"{self.fault} was not carried out: {self.reason}"


class Started(_Event, frozen=True):
    """A process of `worker` runs."""

    worker: str
    pid: int

    def __str__(self) -> str:
        return f"{self.worker} started (pid {self.pid})"


class Noted(_Event, frozen=True):
    """Something else that matters, in words."""

    text: str

    def __str__(self) -> str:
        return self.text


class Judged(_Event, frozen=True):
    """The verdict, and why it is that."""

    status: str
    reasons: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "; ".join((self.status, *self.violations, *self.reasons))


Event: TypeAlias = (
    Began | Named | Accepted | Arrived | Asked | Replied | Broke | Spared | Spoiled | Healed | Started | Noted | Judged
)

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def write(path: Path, events: Iterable[Event]) -> None:
    """Append events to a file."""
    with path.open("ab") as file:
        file.write(b"".join(_encode(event) + b"\n" for event in events))


def read(path: Path) -> Iterator[Event]:
    """The events in a file.

    Raises:
        msgspec.ValidationError: a line is none.
    """
    with path.open("rb") as file:
        yield from map(_decode, file)
