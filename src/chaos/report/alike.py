"""Schedules that look alike: what is likely to be one cause is shown once, with all the places that lead to it.

Nobody can see a cause in a history, so this claims likeness and no more. It looks at what is left of a violated key's
story when keys, processes, counts and times are taken away.

- An effect that was done more than once for the key, by role and site: ``payment/http.post was done more than once``.
  If requests to HTTP services are among those, they alone count: what a ledger records is mostly one of them, and what
  else was repeated depends on where the worker happened to be broken.
- Where nothing was done twice: the effect that the story ends with, and those that were asked for and never done.

Two violated schedules look alike if the same invariants were broken and the keys' stories leave the same. Two unknown
ones do if the first lines of their reasons are the same but for faults, points, ids and numbers. A program may have two
faults that look alike, and one that looks different at different places.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.report.story import moments
from chaos.schedule import apart, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chaos.report.data import Outcome
    from chaos.report.story import Moment

_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9A-Za-z])(?=[a-f]*\d)[0-9a-f]{6,}(?![0-9A-Za-z])")
_NUMBER = re.compile(r"(?<![A-Za-z])\d+(?:\.\d+)?")
_KEY = re.compile(r"\[[^\[\]]+\]")
_FAULT = re.compile(r"[\w.-]+~\d+/[\w.-]+(?:\[[^\[\]]+\])?#\d+(?::[\w-]+(?:=[\w.,-]*\w)?)?")
_SEEN = re.compile(r"(; arrivals were seen at ).*")


@dataclass(frozen=True)
class Group:
    """Outcomes that look alike, and what they have in common."""

    likeness: tuple[str, ...]
    outcomes: tuple[Outcome, ...]

    @property
    def broken(self) -> list[tuple[str, str]]:
        """Where faults fired, by role and site; which, and in how many of the schedules."""
        places: dict[str, Counter[str]] = {}
        for one in self.outcomes:
            for fault in dict.fromkeys(_place(fault) for fault, _ in one.fired):
                places.setdefault(fault[0], Counter())[fault[1]] += 1
        ranked = sorted(places.items(), key=lambda place: -place[1].total())
        return [(place, ", ".join(f"{action} in {n}" for action, n in kinds.most_common())) for place, kinds in ranked]


def _place(fault: str) -> tuple[str, str]:
    """Role and site, and what was done there."""
    point, action = apart(fault)
    name = split(point)
    return f"{name.worker}/{name.site}", action


def essence(told: Sequence[Moment], alias: str) -> str:
    """What is left of a key's story; see the module's docstring."""
    own = [one for one in told if one.kind == "effect" and alias in one.aliases]
    times: Counter[str] = Counter()
    for one in own:
        times[f"{one.role}/{one.what}"] += one.done
    repeated = [name for name, count in times.items() if count > 1]
    if repeated:
        outside = [name for name in repeated if "/http." in name]
        return f"{_are(outside or repeated)} done more than once"
    if not own:
        return "no effect about the key was seen"
    last = next((one for one in reversed(own) if one.done), None)
    never = [name for name, count in times.items() if not count]
    missed = f"; {_are(never)} asked for, not done" if never else ""
    return f"{f'the last effect done is {last.role}/{last.what}' if last else 'nothing was done'}{missed}"


def _are(names: Sequence[str]) -> str:
    return f"{' and '.join(sorted(names))} {'was' if len(names) == 1 else 'were'}"


def violated(outcomes: Iterable[Outcome]) -> list[Group]:
    """The violated ones, the largest group first."""
    return _grouped((one for one in outcomes if one.status == "violated"), _causes)


def undecided(outcomes: Iterable[Outcome]) -> list[Group]:
    """The unknown ones, the largest group first."""
    return _grouped((one for one in outcomes if one.status == "unknown"), _reasons)


def _grouped(outcomes: Iterable[Outcome], likeness: Callable[[Outcome], tuple[str, ...]]) -> list[Group]:
    groups: dict[tuple[str, ...], list[Outcome]] = {}
    for one in outcomes:
        groups.setdefault(likeness(one), []).append(one)
    return sorted((Group(what, tuple(them)) for what, them in groups.items()), key=lambda group: -len(group.outcomes))


def _causes(outcome: Outcome) -> tuple[str, ...]:
    told = moments(outcome.history)
    left = {
        f"{one.invariant}: {essence(told, one.alias) if told else 'nothing is known of what happened'}"
        for one in outcome.findings
    }
    return tuple(sorted(left)) or ("no finding says which invariant",)


def _reasons(outcome: Outcome) -> tuple[str, ...]:
    return tuple(sorted({abstract(reason) for reason in outcome.reasons})) or ("no reason was given",)


def abstract(reason: str) -> str:
    """A reason's first line without points, keys, ids and numbers, and the list of what was seen elsewhere."""
    line = _SEEN.sub(r"\1…", _FAULT.sub(_nameless, reason.partition("\n")[0]))
    return _NUMBER.sub("n", _KEY.sub("[…]", _ID.sub("…", line)))


def _nameless(match: re.Match[str]) -> str:
    return "a fault" if ":" in match[0] else "a point"
