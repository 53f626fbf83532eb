"""What the page's script draws a schedule's timeline from: lanes, and rows of small numbers; a text stands there once.

A drill of a thousand orders has ten thousand events, and a page has to open. So a timeline has at most `EVENTS` of
them: first all faults, restarts and notes, then what is about violating keys, then what is nearest to those in time.
What was left out is counted, as a whole and before each row.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from chaos.report.story import aliases, moments
from chaos.schedule import split

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.report.data import Outcome
    from chaos.report.story import Moment

EVENTS = 3000
_TICKS = 10_000  # a second, as the page counts
_ALWAYS = frozenset({"fault", "spared", "start", "note", "judged"})
_LONGEST = 300  # characters of a text that comes from outside


def cut(text: str, longest: int = _LONGEST) -> str:
    """A text, and how much of it was left out if it is too long."""
    return text if len(text) <= longest else f"{text[:longest]} … and {len(text) - longest} characters more"


@dataclass
class _Texts:
    """Texts by number, each once."""

    texts: dict[str, int] = field(default_factory=dict)

    def __call__(self, text: str) -> int:
        return self.texts.setdefault(text, len(self.texts))


def encode(outcome: Outcome) -> str:
    """A timeline as JSON that may stand in a page's script; empty if nothing is known of what happened."""
    told = moments(outcome.history)
    if not told:
        return ""
    return msgspec.json.encode(draw(outcome, told)).decode().replace("<", "\\u003c").replace(">", "\\u003e")


def draw(outcome: Outcome, told: Sequence[Moment]) -> dict[str, Any]:
    """A timeline as data.

    ``lanes`` are the processes by worker and incarnation, then the services, each as name, kind (0: a process, 1: a
    service) and the lane that it came in place of, or -1. ``keys`` have alias, the keys that it stands for, and whether
    one violates. ``shown`` of ``all`` events are here, those that name keys and the first one included. A row has kind,
    time in tenths of milliseconds, lane, what it is, service's lane, the keys it is about with the count in each one's
    name, outcome, time of the reply or -1, faults, detail, the point's name by count and that count, how many events
    were left out directly before it, and whether it ended the process. Texts are numbers, of those in ``texts``.
    """
    violating = {one.alias for one in outcome.findings}
    kept = choose(told, violating)
    text, lanes = _Texts(), _lanes(told)
    place = {name: number for number, (name, *_) in enumerate(lanes)}
    named: dict[str, list[str]] = {}
    for key, alias in aliases(outcome.history).items():
        named.setdefault(alias, []).append(key)
    seen = dict.fromkeys(alias for number in kept for alias in told[number].aliases)
    keys = {alias: number for number, alias in enumerate(sorted(seen, key=lambda one: one not in violating))}
    rows, last = [], -1
    for number in kept:
        left = sum(one.events for one in told[last + 1 : number])
        rows.append(_row(told[number], text, place, keys, left))
        last = number
    return {
        "lanes": lanes,
        "keys": [[alias, named.get(alias, []), int(alias in violating)] for alias in keys],
        "rows": rows,
        "rest": sum(one.events for one in told[last + 1 :]),
        "shown": sum(told[number].events for number in kept) + 1 + sum(len(named.get(alias, ())) for alias in keys),
        "all": len(outcome.history),
        "texts": list(text.texts),
    }


def choose(told: Sequence[Moment], violating: Iterable[str], most: int = EVENTS) -> list[int]:
    """Which moments are shown, in order; see the module's docstring."""
    wanted = set(violating)
    first = [number for number, one in enumerate(told) if one.kind in _ALWAYS or one.faults]
    own = [number for number, one in enumerate(told) if wanted & set(one.aliases)]
    marks = sorted({*first, *own}) or [0]

    def distance(number: int) -> int:
        behind = bisect.bisect(marks, number)
        return min(abs(number - mark) for mark in marks[max(0, behind - 1) : behind + 1])

    ranked = dict.fromkeys([*first, *own, *sorted(range(len(told)), key=distance)])
    kept, room = [], most
    for number in ranked:
        room -= told[number].events
        if room < 0:
            break
        kept.append(number)
    return sorted(kept)


def _service(site: str) -> str:
    return site.partition(".")[0]


def _lanes(told: Sequence[Moment]) -> list[tuple[str, int, int]]:
    """Workers in the order in which they first did something, all of one worker's processes together."""
    workers: dict[str, set[int]] = {}
    for one in told:
        worker, mark, incarnation = one.lane.partition("~")
        if mark:
            workers.setdefault(worker, set()).add(int(incarnation))
    found: list[tuple[str, int, int]] = []
    for worker, numbers in workers.items():
        before = -1
        for number in sorted(numbers):
            found.append((f"{worker}~{number}", 0, before))
            before = len(found) - 1
    services = dict.fromkeys(_service(one.what) for one in told if one.kind == "effect")
    return found + [(name, 1, -1) for name in services]


def _row(one: Moment, text: _Texts, place: dict[str, int], keys: dict[str, int], left: int) -> list[Any]:
    counts: dict[int, int] = {}
    for point in one.points[1:]:
        if (alias := split(point).alias) in keys:
            counts[keys[alias]] = int(point.rpartition("#")[2])
    if not counts and one.aliases:
        counts = {keys[alias]: 0 for alias in one.aliases if alias in keys}
    return [
        text(one.kind),
        round(one.at * _TICKS),
        place.get(one.lane, -1),
        text(cut(one.what)),
        place.get(_service(one.what), -1) if one.kind == "effect" else -1,
        [part for pair in counts.items() for part in pair],
        text(one.outcome),
        -1 if one.until is None else round(one.until * _TICKS),
        text(", ".join(one.faults)),
        text(cut(one.detail)),
        text(one.points[0].rpartition("#")[0]) if one.points else -1,
        int(one.points[0].rpartition("#")[2]) if one.points else 0,
        left,
        int(one.ends),
    ]
