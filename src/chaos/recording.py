"""A recording: what a system does when nothing is broken, and so where it can be broken.

A `Recording` is made by running the workload twice without a fault, with an audit around it (`chaos.audit`), and up to
twice more where the runs do not agree on what is about a key. Its `points` are the denominator of every sweep: the
names that the last two runs have. Kept apart, and told:

- `background`: effects about no key that come when nobody has asked for anything (a lease renewed, a heartbeat row),
  and commits of offsets that cover nothing new. They can be broken by name, and their number means nothing.
- `drifting`: names that not all runs have. A name is not stable where an effect is about no key that the workload told
  of, and its count depends on how much went into a batch, or on the clock; nor is a second time. Whether a key has such
  an effect at all has to be the same in both runs, or nothing is proven.

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
from chaos.drill import judge_again
from chaos.errors import UnknownName
from chaos.history import Arrived, Asked, Replied
from chaos.schedule import Schedule, split

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from chaos.advice import Advice
    from chaos.drill import Verdict
    from chaos.history import Event
    from chaos.schedule import Fault
    from chaos.system import System

RUNS, _MOST_RUNS = 2, 4


@dataclass(frozen=True)
class Recording:
    """See the module's docstring. `points` are in the order of the last run; `reasons` say why it proves nothing.

    `violations` are those of its runs, which had no fault: where points are known all the same, more can be found.
    """

    points: tuple[str, ...]
    background: tuple[str, ...]
    drifting: tuple[str, ...]
    checkpoints: frozenset[str]  # points that are checkpoints
    unanswered: frozenset[str]  # points of effects to which no server replies
    same: Mapping[str, str]  # by point: the one before which a crash is the same as a crash after this one
    links: frozenset[str]  # what schedules may call links
    audited: str
    runs: tuple[Verdict, ...] = field(repr=False)
    reasons: tuple[str, ...] = ()
    violations: tuple[str, ...] = ()

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


def names(history: Iterable[Event], roles: Collection[str]) -> list[str]:
    """The names of all that arrived from workers of these roles, in order; nothing that was refused.

    By keys where there are any, else by count.
    """
    refused = {event.number for event in history if isinstance(event, Replied) and event.outcome == "refused"}
    found: dict[str, None] = {}
    for event in history:
        if isinstance(event, Asked) and event.number not in refused:
            found |= dict.fromkeys(event.names)
        elif isinstance(event, Arrived):
            found[event.point] = None
    return [name for name in found if split(name).worker in roles]


def record(system: System) -> Recording:
    """Run the workload until two runs in a row agree, and a while without any; say what there is to break."""
    roles = {worker.name for worker in system.workers}
    with Audit(system.lane, system.crew) as audit:
        runs = [system.run(Schedule()) for _ in range(RUNS)]
        while len(runs) < _MOST_RUNS and _keyed(runs[-2], roles) != _keyed(runs[-1], roles):
            runs.append(system.run(Schedule()))
        idle = _idle(system)
        for run in runs:
            judge_again(system, run)  # what came late is a violation all the same
        holes = audit.holes(runs)
    seen = [names(run.history, roles) for run in runs]
    background = {name for run in runs for name in _repeats(run.history)}
    background |= {name for run in seen for name in run if not split(name).alias and split(name)[:2] in idle}
    stable = set(seen[-2]) & set(seen[-1]) - background
    reasons = [f"the fault-free run is {run.status}: {said}" for run in runs for said in run.reasons]
    odd = {name for name in _keyed(runs[-2], roles) ^ _keyed(runs[-1], roles) if name.endswith("]#1")}
    reasons += [
        f"{name} is about a key and was seen in one of two runs: nobody knows whether it is a point" for name in odd
    ]
    if not stable:
        reasons.append("no point was seen in both runs: there is nothing to break")
    apart = {worker.name for worker in system.workers if worker.http or worker.kill == "process"}
    return Recording(
        points=tuple(name for name in seen[-1] if name in stable),
        background=tuple(sorted({"/".join(split(name)[:2]) for name in background} | {"/".join(one) for one in idle})),
        drifting=tuple(sorted(set.union(*map(set, seen)) - stable - background)),
        checkpoints=frozenset(event.point for run in runs for event in run.history if isinstance(event, Arrived)),
        unanswered=frozenset(name for run in runs for name in _unanswered(run.history)),
        same=dict(set.intersection(*(set(_neighbours(run.history, apart)) for run in runs[-2:]))),
        links=frozenset(system.lane.links.names),
        audited=", ".join(f"{count} {what}" for what, count in audit.counted.items() if count)
        or "nothing: there is no server",
        runs=tuple(runs),
        reasons=(*reasons, *holes),
        violations=tuple(f"the fault-free run is violated: {said}" for run in runs for said in run.violations),
    )


def _keyed(run: Verdict, roles: Collection[str]) -> set[str]:
    return {name for name in names(run.history, roles) if split(name).alias}


def _repeats(history: Iterable[Event]) -> Iterator[str]:
    """The names of commits of offsets that cover nothing new."""
    for event in history:
        if isinstance(event, Asked) and event.repeats:
            yield from event.names


def _unanswered(history: Iterable[Event]) -> Iterator[str]:
    """The names of effects to which no server replies."""
    sent = {event.number for event in history if isinstance(event, Replied) and event.outcome == "sent"}
    for event in history:
        if isinstance(event, Asked) and event.number in sent:
            yield from event.names


def _neighbours(history: Sequence[Event], apart: Collection[str]) -> Iterator[tuple[str, str]]:
    """Pairs of points between which a crash is the same, whether it is after the first or before the second.

    The reply to the one is directly followed by the other, in the whole system; both are the same process's, which has
    nothing else under way, and has sent nothing in between that may have changed something. The roles that are `apart`
    are several processes, or answer clients whom the wire does not see.
    """
    asked = {event.number: event for event in history if isinstance(event, Asked)}
    open_effects: set[tuple[int, int]] = set()
    for event, following in itertools.pairwise(history):
        if isinstance(event, Asked):
            open_effects.add(event.number)
        elif isinstance(event, Replied):
            open_effects.discard(event.number)
            first = asked.get(event.number)
            if first is None or not isinstance(following, Asked) or event.outcome != "done":
                continue
            busy = any(asked[number].worker == first.worker for number in open_effects if number in asked)
            alike = (following.worker, following.stirs) == (first.worker, first.stirs)
            if alike and not busy and split(first.points[0]).worker not in apart:
                yield from itertools.product(first.names, following.names)


def _idle(system: System) -> set[tuple[str, str]]:
    """Worker and site of what happens by itself while nobody asks for anything, and has not for half the grace."""
    time.sleep(system.grace / 2)
    with system.crew.armed(Schedule()) as armed:
        time.sleep(system.grace / 2)
    return {split(name)[:2] for event in armed.history if isinstance(event, Asked) for name in event.names}
