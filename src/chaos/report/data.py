"""A report as data: what a sweep, an exploration or single drills have shown. One JSON file, ``report.json``.

The terminal's table, the timeline (`chaos.report.timeline`) and the report of several shards are made from it alone, so
they can be made later, elsewhere. An outcome that does not hold carries its history; of those that hold, some do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from chaos.errors import ChaosError
from chaos.history import Event  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = 1


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """A violated invariant: of which key, and the lines of the ledger that show it, each with its number."""

    invariant: str
    key: str
    alias: str
    detail: str
    records: tuple[str, ...] = ()


class Outcome(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one schedule. `status` is ``holds``, ``violated``, ``unknown``, or ``unfit`` (could not be done).

    `fired` has, by fault as text, who was broken and how that ended. A schedule that violated was run `again` so many
    times, and `reproduced` so often; `replay` is the command that does so.
    """

    schedule: str
    status: str
    seconds: float = 0.0
    fired: tuple[tuple[str, str], ...] = ()
    findings: tuple[Finding, ...] = ()
    reasons: tuple[str, ...] = ()
    not_reached: tuple[str, ...] = ()
    again: int = 0
    reproduced: int = 0
    replay: str = ""
    history: tuple[Event, ...] = ()


class _Format(msgspec.Struct):
    format: int


class Report(msgspec.Struct, frozen=True):
    """See the module's docstring. `kind` is ``sweep``, ``explore`` or ``drill``; `points` is a sweep's denominator.

    `reasons` say why it proves less than it should, beside what the outcomes say. `shard` is such as ``2/8``.
    """

    kind: str
    system: str
    status: str
    seconds: float
    outcomes: tuple[Outcome, ...]
    points: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    shard: str = ""
    depth: int = 1
    format: int = FORMAT


def write(path: Path, report: Report) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(report) + b"\n")


def read(path: Path) -> Report:
    """The report in a file.

    Raises:
        ChaosError: there is none.
    """
    try:
        content = path.read_bytes()
        number = msgspec.json.decode(content, type=_Format).format  # first: another one may have other fields
        if number == FORMAT:
            return msgspec.json.decode(content, type=Report)
    except (OSError, ValueError) as error:  # msgspec's errors are ValueErrors
        raise ChaosError(f"{path} is no report of onecharge: {error}") from error
    raise ChaosError(f"{path} has format {number}; this version reads format {FORMAT}")
