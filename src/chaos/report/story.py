"""A drill's history, read for people: moments in order, and the short story of one key in words.

`moments` ties together what belongs together: an effect and what became of it, a fault and the effect it was carried
out at, a process and the one that came in its place. `story` tells what was about one key, and the faults and restarts
in between, with the seconds since the drill began. It tells what the history has and no more: an effect that the wire
could not tie to a key is in nobody's story, and a time is that of whoever saw it (the wire; for faults and restarts the
drill, which is told a moment later).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.history import (
    Accepted,
    Arrived,
    Asked,
    Broke,
    Healed,
    Judged,
    Named,
    Noted,
    Replied,
    Spared,
    Spoiled,
    Started,
)
from chaos.schedule import apart, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chaos.history import Event

DONE = frozenset({"done", "sent"})
_WORDS = {"sent": "sent (nobody replies)", "unclear": "with an unclear outcome", "": "without a reply that was seen"}


@dataclass(frozen=True)
class Moment:
    """Something that happened `at` so many seconds after the drill began, to the process `lane` (``payment~1``).

    `kind` is ``effect``, ``fault``, ``spared``, ``start``, ``checkpoint``, ``accepted``, ``note`` or ``judged``; `what`
    an effect's site, a fault as text, or words. `points` are its names, `outcome` and `until` what became of it and
    when, `faults` what was done at it. `ends` says that the process was gone then, `events` how many events it was.
    """

    at: float
    kind: str
    lane: str = ""
    what: str = ""
    points: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    outcome: str = ""
    until: float | None = None
    faults: tuple[str, ...] = ()
    detail: str = ""
    ends: bool = False
    events: int = 1

    @property
    def role(self) -> str:
        """Whose it is, whichever process of it."""
        return split(self.points[0]).worker if self.points else self.lane.partition("~")[0]

    @property
    def worker(self) -> str:
        """Role, and replica if there are several: what a process and its successor have in common."""
        return self.lane.partition("~")[0]

    @property
    def who(self) -> str:
        """The process, by its role alone while nobody of it was replaced."""
        return self.lane.removesuffix("~0")

    @property
    def done(self) -> int:
        """How often an effect is known to have taken place."""
        return (self.kind == "effect" and self.outcome in DONE) * (2 if "repeat" in self.faults else 1)


@dataclass(frozen=True)
class Step:
    """A line of a story, and whether it is one in which something was broken."""

    at: float
    text: str
    broke: bool = False

    def __str__(self) -> str:
        return f"{self.at:.3f} {self.text}"


@dataclass
class _Lives:
    """Which process an event is of: a worker's first, or one that came in place of a killed one.

    A point's ``~n`` counts the role's kills over all replicas, so it does not say that; faults and restarts do.
    """

    history: Sequence[Event]
    lives: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = {event.worker for event in self.history if isinstance(event, Asked | Arrived)}
        named = [event.worker for event in self.history if isinstance(event, Broke | Started)]
        self.replaced = {self.member(event.worker) for event in self.history if isinstance(event, Started)}
        last = {event.worker: event for event in self.history if isinstance(event, Broke)}
        self.deaths = {
            id(event)
            for event in self.history
            if isinstance(event, Broke)
            and ("SIGKILL" in event.what or (last[event.worker] is event and self._replaced(event.worker)))
        }
        several = {one.partition("~")[0] for one in named} & self.known
        several |= {worker for worker in self.known if not worker.endswith(".0")}
        self.several = {worker.rpartition(".")[0] for worker in several}

    def member(self, name: str) -> tuple[str, int]:
        """Worker as its effects name it (``payment.0``), and which of its processes, of ``payment~1``."""
        base, _, number = name.partition("~")
        worker = base if base in self.known else f"{base}.0"
        return worker, int(number or 0)

    def _replaced(self, name: str) -> bool:
        worker, number = self.member(name)
        return (worker, number + 1) in self.replaced

    def lane(self, worker: str) -> str:
        """The process that this worker is at the moment."""
        role = worker.rpartition(".")[0]
        return f"{worker if role in self.several else role}~{self.lives.get(worker, 0)}"

    def named(self, event: Broke | Started) -> str:
        """The process that a fault or a restart is about; who is killed is another one from here on."""
        worker, number = self.member(event.worker)
        self.lives[worker] = number
        lane = self.lane(worker)
        self.lives[worker] = number + (id(event) in self.deaths)
        return lane


def aliases(history: Iterable[Event]) -> dict[str, str]:
    """By key: what points call it."""
    return {event.key: event.alias for event in history if isinstance(event, Named)}


def moments(history: Sequence[Event]) -> list[Moment]:
    """All that happened, in order; see the module's docstring."""
    if not history:
        return []
    began, lives, names = history[0].at, _Lives(history), aliases(history)
    replies = {event.number: event for event in history if isinstance(event, Replied)}
    broken: dict[str, list[str]] = {}
    for event in history:
        if isinstance(event, Broke):
            point, action = apart(event.fault)
            broken.setdefault(point, []).append(action)
    found = []
    for event in history:
        at = event.at - began
        if isinstance(event, Asked):
            found.append(_effect(event, at, lives.lane(event.worker), replies, broken))
        else:
            found += _other(event, at, lives, names)
    return found


def _effect(
    event: Asked, at: float, lane: str, replies: Mapping[tuple[int, int], Replied], broken: Mapping[str, list[str]]
) -> Moment:
    reply = replies.get(event.number)
    return Moment(
        at,
        "effect",
        lane,
        split(event.points[0]).site,
        event.points,
        tuple(dict.fromkeys(split(point).alias for point in event.points if split(point).alias)),
        reply.outcome if reply else "",
        at + reply.at - event.at if reply else None,
        tuple(action for point in event.points for action in broken.get(point, ())),
        events=2 if reply else 1,
    )


def _other(event: Event, at: float, lives: _Lives, names: Mapping[str, str]) -> list[Moment]:
    found: Moment | None = None
    match event:
        case Accepted():
            found = Moment(at, "accepted", what=event.key, aliases=(names.get(event.key, event.key),))
        case Arrived():
            found = Moment(at, "checkpoint", lives.lane(event.worker), split(event.point).site, (event.point,))
        case Broke():
            detail = event.what + (", and nobody overtook it" if event.alone else "")
            lane, ends = lives.named(event), id(event) in lives.deaths
            found = Moment(at, "fault", lane, event.fault, detail=detail, ends=ends)
        case Spared():
            found = Moment(at, "spared", what=event.fault, detail=event.reason)
        case Started():
            found = Moment(at, "start", lives.named(event), f"pid {event.pid}")
        case Noted() | Spoiled() | Healed():
            found = Moment(at, "note", what=str(event))
        case Judged():
            found = Moment(at, "judged", what=event.status, detail="; ".join((*event.violations, *event.reasons)))
    return [found] if found else []


def story(told: Sequence[Moment], alias: str) -> list[Step]:
    """What was about this key, and the faults and restarts in between.

    Also the end of a process that had to do with it, and who came in its place, when no more of the key was seen.
    """
    own = [one for one in told if alias in one.aliases]
    if not own:
        return []
    points = {point for one in own for point in one.points}
    first, last = own[0].at, max(one.until or one.at for one in own)
    workers = {one.worker for one in own}

    def told_too(one: Moment) -> bool:
        over = one.worker in workers and (one.ends or one.kind == "start")
        return _context(one, points) and first <= one.at and (one.at <= last or over)

    shown = [one for one in told if alias in one.aliases or told_too(one)]
    asked: set[tuple[str, str]] = set()
    steps = []
    for one in shown:
        again = one.kind == "effect" and (one.role, one.what) in asked
        asked.add((one.role, one.what))
        steps += _steps(one, shown, again=again)
    return sorted(steps, key=lambda step: step.at)


def _context(one: Moment, points: set[str]) -> bool:
    """Whether it is told although it is about no key: but for a fault that stands with the effect it was done at."""
    return one.kind in {"start", "spared"} or (one.kind == "fault" and apart(one.what)[0] not in points)


def _steps(one: Moment, shown: Sequence[Moment], *, again: bool) -> list[Step]:
    match one.kind:
        case "effect":
            return _effect_steps(one, shown, again=again)
        case "accepted":
            return [Step(one.at, "accepted: the system answers for it from here on")]
        case "start":
            return [Step(one.at, f"{one.lane} was started in its place")]
    point, action = apart(one.what)
    where = point.partition("/")[2]
    if one.kind == "spared":
        return [Step(one.at, f"{action} at {where} was not carried out: {one.detail}", broke=True)]
    return [Step(one.at, f"{one.who}: {action} at {where}", broke=True)]


def _effect_steps(one: Moment, shown: Sequence[Moment], *, again: bool) -> list[Step]:
    """One line, or two where something else of the story lies between an effect and what became of it."""
    name = f"{one.who}: {one.what}"
    faults = "".join(f" → {fault}" for fault in one.faults)
    repeated = " again" if again else ""
    if one.until is not None and any(one.at < other.at < one.until for other in shown):
        ended = f"{name} {_WORDS.get(one.outcome, one.outcome)} (asked at {one.at:.3f})"
        return [Step(one.at, f"{name} asked{repeated}{faults}", broke=bool(faults)), Step(one.until, ended)]
    outcome = "" if faults and not one.outcome else f" {_WORDS.get(one.outcome, one.outcome)}"
    return [Step(one.at, f"{name}{outcome}{repeated}{faults}", broke=bool(faults))]
