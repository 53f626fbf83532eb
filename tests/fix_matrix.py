"""The matrix: each worker of the shop loses each service that it uses, in each way; what came of it, and how soon.

A cell is one drill: a worker comes to a point about the first order, and there its link to one service goes bad, or the
service itself does, for everybody, for longer than its clients wait for an answer. Recovery is from when that was
healed, and the healing proven, until the last effect of the drill.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from chaos.history import Healed, Replied
from chaos.schedule import Schedule, done_at
from tests.bars import STYLE
from tests.fix_shop import shop

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos import Session, System, Verdict

POINTS = {
    "api": ("postgres.commit", ("postgres",)),
    "relay": ("kafka.produce", ("postgres", "kafka")),
    "cdc": ("kafka.produce", ("postgres", "kafka")),  # the relay that reads the log, in a shop of its own
    "payment": ("http.post", ("postgres", "kafka", "gateway")),
    "inventory": ("postgres.commit", ("postgres", "kafka")),
    "notification": ("postgres.commit", ("postgres", "kafka")),
}
WAYS = {
    "cut": "{worker}-SERVICE:down=SECONDS",
    "slow": "{worker}-SERVICE:latency=SECONDS,both,latency_ms:200,jitter_ms:50",
    "half-open": "{worker}-SERVICE:timeout=SECONDS,both",
    "reset": "{worker}-SERVICE:reset_peer=SECONDS",
    "killed": "SERVICE:kill",
    "frozen": "SERVICE:freeze=SECONDS",
}
IMPATIENT = {"SILENCE_S": "1", "SESSION_TIMEOUT_MS": "1000", "RELAY_LEASE_S": "2"}  # a relay waits for half its lease
LONGER_S, LONGER_THAN_DEFAULT_S = "1.5", "4"  # than those, and than a default `SILENCE_S`
TITLE = "What is lost, and how soon all is done again"
MORE = """
table { border-collapse: collapse; margin-top: 1rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--soft); }
th:first-child, thead th { text-align: left; font-weight: 600; }
td.bad { color: var(--hot); font-weight: 700; }
"""


class Cell(NamedTuple):
    """A worker, a service that it uses, and what befalls that."""

    worker: str
    service: str
    way: str

    def schedule(self, seconds: str) -> Schedule:
        """As text it is what replays the drill."""
        point = f"{self.worker}/{POINTS[self.worker][0]}[key-1]"
        what = WAYS[self.way].replace("SERVICE", self.service).replace("SECONDS", seconds)
        return Schedule.parse(done_at(point, what))


class Outcome(NamedTuple):
    """What a cell's drill has shown; `recovery_s` is None where nothing was left to do when all was whole again."""

    cell: Cell
    verdict: Verdict
    healed_s: float | None  # from the order to heal until it was proven
    recovery_s: float | None

    @property
    def text(self) -> str:
        """In the table."""
        if self.verdict.status != "holds":
            return self.verdict.status
        return "0.00" if self.recovery_s is None else f"{self.recovery_s:.2f}"


def cells() -> Iterator[Cell]:
    """All of them."""
    for worker, (_, services) in POINTS.items():
        for service in services:
            for way in WAYS:
                yield Cell(worker, service, way)


def diagonal() -> list[Cell]:
    """One cell of each row, each in another way than the row before: every pair once, and every way."""
    rows = dict.fromkeys(cell[:2] for cell in cells())
    return [Cell(*row, list(WAYS)[number % len(WAYS)]) for number, row in enumerate(rows)]


def carry_out(session: Session, some: Sequence[Cell]) -> Iterator[Outcome]:
    """One after the other, with time-outs of 1 s."""
    return _each(session, some, LONGER_S, IMPATIENT)


def carry_out_patiently(session: Session, some: Sequence[Cell]) -> Iterator[Outcome]:
    """The same with all time-outs at their defaults, and faults that stand for longer."""
    return _each(session, some, LONGER_THAN_DEFAULT_S, {})


def _each(session: Session, some: Sequence[Cell], seconds: str, env: Mapping[str, str]) -> Iterator[Outcome]:
    for from_log in (False, True):
        cells = [cell for cell in some if (cell.worker == "cdc") is from_log]
        if cells:
            with shop(session, own_servers=True, from_log=from_log, env=env) as system:
                yield from _drills(system, cells, seconds)


def _drills(system: System, some: Sequence[Cell], seconds: str) -> Iterator[Outcome]:
    by_schedule = {str(cell.schedule(seconds)): cell for cell in some}
    for verdict in system.each(map(Schedule.parse, by_schedule)):
        healed = [event for event in verdict.history if isinstance(event, Healed)]
        last = max((event.at for event in verdict.history if isinstance(event, Replied)), default=0.0)
        after = last - healed[0].at if healed else 0.0
        yield Outcome(
            by_schedule[str(verdict.schedule)], verdict, healed[0].seconds if healed else None, max(after, 0.0) or None
        )


def table(outcomes: Sequence[Outcome]) -> str:
    """For a terminal: seconds until all was done, once it was whole again."""
    rows = [("", *WAYS), *((f"{worker}, {service}", *told) for (worker, service), told in _rows(outcomes))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def page(outcomes: Sequence[Outcome]) -> str:
    """The same as a page."""
    head = "".join(f"<th>{escape(way)}</th>" for way in ("", *WAYS))
    body = "".join(
        f"<tr><th>{escape(worker)} loses {escape(service)}</th>{''.join(map(_cell, told))}</tr>"
        for (worker, service), told in _rows(outcomes)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{TITLE}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{MORE}</style>'
        f"<h1>{TITLE}</h1>"
        "<p>Seconds from when it was whole again until the last effect. "
        "Where there is a number nothing was lost, and nothing doubled.</p>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></html>\n"
    )


def _rows(outcomes: Sequence[Outcome]) -> Iterator[tuple[tuple[str, str], list[str]]]:
    found = {one.cell: one.text for one in outcomes}
    for worker, service in dict.fromkeys(one.cell[:2] for one in outcomes):
        yield (worker, service), [found.get(Cell(worker, service, way), "") for way in WAYS]


def _cell(text: str) -> str:
    bad = ' class="bad"' if text and not text[0].isdecimal() else ""
    return f"<td{bad}>{escape(text)}</td>"
