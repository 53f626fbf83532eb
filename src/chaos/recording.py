"""A recording: what a system does when nothing is broken, and so where it can be broken.

A `Recording` is made by running the workload twice without a fault, with an audit around it (`chaos.audit`). Its
`points` are the denominator of every sweep: the names that both runs have. Kept apart, and told:

- `background`: effects about no key that come when nobody has asked for anything (a lease renewed, a heartbeat row),
  and commits of offsets that cover nothing new. They can be broken by name, and their number means nothing.
- `drifting`: names that only one of the runs has. A name is not stable where an effect is about no key that the
  workload told of, and its count depends on how much went into a batch, or on the clock.

An effect that is about several keys has several names and is one frame; the denominator counts names. A name by count
alone is used where an effect is about no key. An effect that its server refused is no point.
"""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.advice import advice
from chaos.audit import Audit
from chaos.errors import UnknownName
from chaos.history import Arrived, Asked, Replied
from chaos.schedule import Schedule, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from chaos.advice import Advice
    from chaos.drill import Verdict
    from chaos.history import Event
    from chaos.schedule import Fault
    from chaos.system import System

RUNS = 2
_OFFSET_COMMITS = ("kafka.offset_commit", "kafka.txn_offset_commit")


@dataclass(frozen=True)
class Recording:
    """See the module's docstring. `points` are in the order of the last run; `reasons` say why it proves nothing."""

    points: tuple[str, ...]
    background: tuple[str, ...]
    drifting: tuple[str, ...]
    checkpoints: frozenset[str]  # points that are checkpoints
    unanswered: frozenset[str]  # points of effects to which no server replies
    same: Mapping[str, str]  # by point: the one before which a crash is the same as a crash after this one
    audited: str
    runs: tuple[Verdict, ...] = field(repr=False)
    reasons: tuple[str, ...] = ()

    @property
    def advice(self) -> list[Advice]:
        """What the order of effects in the last run gives away."""
        return advice(self.runs[-1].history)

    def require(self, fault: Fault) -> None:
        """Raise `UnknownName` if nothing of the fault's name was seen in any run."""
        known = {point for run in self.runs for event in run.history for point in _every_name(event)}
        if fault.point not in known:
            raise UnknownName("point", fault.point, known)


def _every_name(event: Event) -> tuple[str, ...]:
    return event.points if isinstance(event, Asked) else (event.point,) if isinstance(event, Arrived) else ()


def names(history: Iterable[Event]) -> list[str]:
    """The names of all that arrived, in order: by keys where there are any, else by count; nothing that was refused."""
    refused = {event.number for event in history if isinstance(event, Replied) and event.outcome == "refused"}
    found: dict[str, None] = {}
    for event in history:
        if isinstance(event, Asked) and event.number not in refused:
            found |= dict.fromkeys(event.names)
        elif isinstance(event, Arrived):
            found[event.point] = None
    return list(found)


def record(system: System) -> Recording:
    """Run the workload twice, and a while without any, and say what there is to break."""
    with Audit(system.lane, system.crew) as audit:
        runs = tuple(system.run(Schedule()) for _ in range(RUNS))
        idle = _idle(system)
        holes = audit.holes(runs)
    roles = {worker.name for worker in system.workers}
    seen = [[name for name in names(run.history) if split(name)[0] in roles] for run in runs]
    background = {
        name for run in seen for name in run if _repeats(name) or (not split(name)[2] and split(name)[:2] in idle)
    }
    stable = set.intersection(*map(set, seen)) - background
    reasons = [
        f"the fault-free run is {run.status}: {said}" for run in runs for said in (*run.reasons, *run.violations)
    ]
    if not stable:
        reasons.append("no point was seen in both runs: there is nothing to break")
    counted = ", ".join(f"{count} {what}" for what, count in audit.counted.items())
    return Recording(
        points=tuple(name for name in seen[-1] if name in stable),
        background=tuple(sorted({"/".join(split(name)[:2]) for name in background} | {"/".join(one) for one in idle})),
        drifting=tuple(sorted(set.union(*map(set, seen)) - stable - background)),
        checkpoints=frozenset(event.point for run in runs for event in run.history if isinstance(event, Arrived)),
        unanswered=frozenset(name for run in runs for name in _unanswered(run.history)),
        same=dict(set.intersection(*(set(_neighbours(run.history)) for run in runs))),
        audited=counted or "nothing: there is no server to ask",
        runs=runs,
        reasons=(*reasons, *holes),
    )


def _repeats(name: str) -> bool:
    """Whether it is a commit of offsets about no key: one that covers nothing new."""
    _, site, alias = split(name)
    return site in _OFFSET_COMMITS and not alias


def _unanswered(history: Iterable[Event]) -> Iterator[str]:
    """The names of effects to which no server replies."""
    sent = {event.number for event in history if isinstance(event, Replied) and event.outcome == "sent"}
    for event in history:
        if isinstance(event, Asked) and event.number in sent:
            yield from event.names


def _neighbours(history: Sequence[Event]) -> Iterator[tuple[str, str]]:
    """Pairs of points between which a crash is the same, whether it is after the first or before the second.

    The reply to the one is directly followed by the other, in the whole system; both are the same process's, which has
    nothing else under way, and has sent nothing in between that may have changed something.
    """
    asked = {event.number: event for event in history if isinstance(event, Asked)}
    happened = [event for event in history if isinstance(event, Asked | Replied | Arrived)]
    open_effects: set[tuple[int, int]] = set()
    for event, following in itertools.pairwise(happened):
        if isinstance(event, Asked):
            open_effects.add(event.number)
        elif isinstance(event, Replied):
            open_effects.discard(event.number)
            first = asked.get(event.number)
            if first is None or not isinstance(following, Asked) or event.outcome != "done":
                continue
            busy = any(asked[number].worker == first.worker for number in open_effects if number in asked)
            if not busy and (following.worker, following.stirs) == (first.worker, first.stirs):
                yield from itertools.product(first.names, following.names)


def _idle(system: System) -> set[tuple[str, str]]:
    """Worker and site of what happens by itself while nobody asks for anything."""
    with system.crew.armed(Schedule()) as armed:
        time.sleep(system.grace)
    return {split(name)[:2] for name in names(armed.history)}
