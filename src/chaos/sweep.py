"""Break a system at every point that it has, in every way, and say of how many that is true.

The denominator is a recording's (`chaos.recording`): the points that two fault-free runs have shown, audited. Each
point is broken by each fault that can be done there, one schedule for each pair. *Depth 2* breaks again at every point
of the recovery: at what a schedule showed that no fault-free run has.

A sweep may be cut into *shards* for several machines: each carries out its part of the schedules, and only
their reports together (`chaos.report.merge.merged`) can say that every point was broken.

A sweep holds if every schedule holds, every point was broken, the audit found no hole, and the points are those of the
baseline. The baseline is a text file to be kept with the tests, a line for each point: a point that is new, or gone,
shows in a diff. Where there is none it is written, and the sweep proves nothing yet.
"""

from __future__ import annotations

import itertools
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos import faults as kinds
from chaos.drill import Result
from chaos.errors import ChaosError, UnknownName
from chaos.history import Arrived
from chaos.recording import names
from chaos.schedule import CRASH_BEFORE, PROTOCOLS, Fault, Schedule, done_at, split
from chaos.wire.steps import Effect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
    from pathlib import Path

    from chaos.drill import Verdict
    from chaos.ground import Body, Ground
    from chaos.recording import Recording

CRASH_AFTER = "crash-after"
AGAIN = (CRASH_BEFORE, CRASH_AFTER)
INTERRUPTED = "it was interrupted: not all that was to be tried was"
_OUTCOMES = ("holds", "violated", "unknown", "unfit", "not reached")
_SOME = 10


@dataclass(frozen=True)
class Shard:
    """One of `count` parts, numbered from 1.

    What is in it depends on each schedule's text alone: recordings on other machines may have another order, or take
    other neighbours for one, and still nothing is left out.
    """

    number: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Such as ``2/8``.

        Raises:
            ChaosError: it is none.
        """
        number, slash, count = text.partition("/")
        if slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count):
            return cls(int(number), int(count))
        raise ChaosError(f"{text!r} is no shard: expected such as 2/8, the second of eight")

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, schedules: Iterable[Schedule]) -> Iterator[Schedule]:
        """Its part of them."""
        return (one for one in schedules if zlib.crc32(str(one).encode()) % self.count == self.number - 1)


WHOLE = Shard()


def carried_out(
    ground: Ground, schedules: Iterable[Schedule], enough: Callable[[Verdict], bool], body: Body | None = None
) -> Iterator[Verdict]:
    """Verdicts, as they come; once one is `enough`, no other schedule is begun."""
    over: list[Verdict] = []
    for verdict in ground.each(itertools.takewhile(lambda _: not over, schedules), body):
        if enough(verdict):
            over.append(verdict)
        yield verdict


def everything() -> tuple[str, ...]:
    """Each fault there is, with each value that a sweep tries."""
    return tuple(
        f"{name}={value}" if value else name for name in kinds.registered() for value in kinds.kind(name).swept
    )


@dataclass
class Sweep(Result):
    """What a sweep has shown. `verdicts` has one for each schedule, `seconds` is how long it took, recordings included.

    `reasons` say why it proves less than it should, beside what its verdicts say.
    """

    recording: Recording
    faults: tuple[str, ...]
    depth: int = 1
    verdicts: list[Verdict] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0
    selected: tuple[str, ...] = ()
    shard: Shard = WHOLE

    @property
    def status(self) -> str:
        """``holds``, ``violated`` or ``unknown``."""
        found = {outcome(verdict) for verdict in (*self.recording.runs, *self.verdicts)}
        if "violated" in found:
            return "violated"
        nothing = not self.verdicts and self.shard == WHOLE  # the part of a small sweep may be empty
        return "unknown" if "unknown" in found or self.reasons or nothing else "holds"

    @property
    def broken(self) -> tuple[str, ...]:
        """The points at which something was carried out."""
        fired = {
            verdict.schedule.faults[0].point
            for verdict in self.verdicts
            if any(fired.fault == str(verdict.schedule.faults[0]) for fired in verdict.fired)
        }
        return tuple(point for point in self.selected if point in fired)

    @property
    def schedule(self) -> str:
        """What it was, in a few words."""
        depth = f", depth {self.depth}" if self.depth > 1 else ""
        shard = f", shard {self.shard}" if self.shard != WHOLE else ""
        return f"sweep of {len(self.selected)} points by {len(self.faults)} faults{depth}{shard}"

    def table(self) -> str:
        """A row for each point; see `table`."""
        rows = [(one.schedule.faults[0].point, outcome(one), bool(one.not_reached)) for one in self.verdicts]
        return table(self.selected, rows)

    def story(self, *, events: bool = False) -> str:
        """The table, what it was counted against, and each schedule that does not hold."""
        recording = self.recording
        count = Counter(map(outcome, self.verdicts))
        shown = ", ".join(f"{count[one]} {one}" for one in _OUTCOMES if count[one])
        missed = sum(bool(verdict.not_reached) for verdict in self.verdicts)
        lines = [f"{self.status}: {self.schedule}, {len(self.verdicts)} schedules in {self.seconds:.1f} s"]
        of = f"{len(self.selected)} broken; the recording has {len(recording.points)}"
        lines += [f"  points      {len(self.broken)} of {of}"]
        lines += [f"  schedules   {shown or 'none'}; {missed} in which a later fault was not reached"]
        alone = sum(fired.alone for verdict in self.verdicts for fired in verdict.fired)
        lines += [f"  alone       {alone} freezes and holds that nobody overtook"] if alone else []
        lines += [f"  audited     {recording.audited}"]
        lines += [f"  merged      {one}:crash-after is {other}:crash-before" for one, other in self.merged.items()]
        lines += [f"  background  {name}" for name in recording.background]
        lines += [f"  drifting    {name}" for name in recording.drifting]
        lines += [f"  advice      {one}" for one in recording.advice]
        lines += [f"  unknown     {reason}" for reason in self.reasons]
        lines += [f"  {line}" for line in self.table().splitlines()]
        wrong = [verdict for verdict in self.verdicts if outcome(verdict) in {"violated", "unknown"}]
        for number, verdict in enumerate(wrong[:_SOME]):
            lines += [f"  {line}" for line in verdict.story(events=events and not number).splitlines()]
        lines += [f"  … and {len(wrong) - _SOME} more that do not hold"] if len(wrong) > _SOME else []
        return "\n".join(lines)

    @property
    def merged(self) -> dict[str, str]:
        """For each point the one whose crash-before stands for its crash-after as well."""
        after = (Fault.parse(f"{point}:{CRASH_AFTER}") for point in self.selected)
        merged = (one.point for one in after if _elsewhere(self.recording, self.selected, self.faults, one))
        return {point: self.recording.same[point] for point in merged}

    def baseline(self) -> str:
        """What a baseline file has to say: each point, and the faults that were carried out there."""
        done: dict[str, list[str]] = {point: [] for point in sorted(self.selected)}
        for verdict in self.verdicts:
            first = verdict.schedule.faults[0]
            if len(verdict.schedule.faults) == 1 and verdict.fired:
                done[first.point].append(first.act)
        for point, other in self.merged.items():
            done[point] += [CRASH_AFTER] if CRASH_BEFORE in done[other] else []
        return "".join(f"{point}  {' '.join(sorted(what)) or 'NOT BROKEN'}\n" for point, what in done.items())


def table(points: Sequence[str], outcomes: Iterable[tuple[str, str, bool]]) -> str:
    """A row for each point: how many schedules began there, and what became of them.

    An outcome is the point of its schedule's first fault, its status, and whether a later fault was not reached.
    """
    counts: dict[str, Counter[str]] = {point: Counter() for point in points}
    for point, status, missed in outcomes:
        counts.setdefault(point, Counter()).update({"schedules": 1, status: 1, "not reached": int(missed)})
    rows: list[tuple[str, ...]] = [("point", "schedules", *_OUTCOMES)]
    rows += [(point, *(str(counts[point][what] or "") for what in rows[0][1:])) for point in points]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def outcome(verdict: Verdict) -> str:
    """What a sweep counts a schedule as: unfit if it is unknown for no other reason than that."""
    only_unfit = bool(verdict.unfit) and set(verdict.reasons) <= set(verdict.unfit)
    return "unfit" if only_unfit and verdict.status == "unknown" else verdict.status


def run_sweep(
    ground: Ground,
    *,
    faults: Sequence[str] | None = None,
    only: Sequence[str] = (),
    depth: int = 1,
    baseline: Path | None = None,
    until_violated: bool = False,
    shard: Shard = WHOLE,
) -> Sweep:
    """Carry out a sweep; see `chaos.ground.Ground.sweep`."""
    if depth not in (1, 2):
        raise ChaosError(f"a sweep of depth {depth}: expected 1, or 2 to break recoveries as well")
    began = time.monotonic()
    recording = ground.record()
    chosen = tuple(everything() if faults is None else faults)
    sweep = Sweep(recording, chosen, depth, reasons=[*recording.violations, *recording.reasons], shard=shard)
    sweep.selected = selected(recording, only)
    roles = {worker.name for worker in ground.workers}
    try:
        whole = not sweep.reasons and _carry_out(sweep, ground, list(shard.of(_first(sweep))), until_violated)
        if whole and depth > 1:
            whole = _carry_out(sweep, ground, list(_again(sweep, roles)), until_violated)
    except BaseException as error:
        interrupted = isinstance(error, KeyboardInterrupt)
        sweep.reasons.append(INTERRUPTED if interrupted else f"{type(error).__name__}: {error}")
        sweep.seconds = time.monotonic() - began
        if interrupted or sweep.verdicts:
            ground.tell(sweep)
        if interrupted:  # without its place, which may have no line in Python 3.11, and then is an error within pytest
            raise KeyboardInterrupt from None
        raise
    if whole:
        sweep.reasons += _unbroken(sweep) if shard == WHOLE else []
        if baseline is not None and sweep.status == "holds":
            sweep.reasons += _compare(sweep, baseline)
    sweep.seconds = time.monotonic() - began
    return sweep


def _carry_out(sweep: Sweep, ground: Ground, schedules: list[Schedule], until_violated: bool) -> bool:  # noqa: FBT001
    """Whether all of them were; the verdicts are kept in their order."""
    place = {schedule: number for number, schedule in enumerate(schedules)}
    found: list[Verdict] = []
    began = time.monotonic()
    try:
        for verdict in carried_out(ground, schedules, lambda one: until_violated and one.status == "violated"):
            found.append(verdict)
            count, passed = Counter(map(outcome, found)), time.monotonic() - began
            left = passed / len(found) * (len(schedules) - len(found))
            rate = f"{60 * len(found) / passed:.0f}/min"
            wrong = f"{count['violated']} violated, {count['unknown']} unknown"
            ground.live(f"swept {len(found)} of {len(schedules)} · {rate} · {wrong} · {left:.0f} s left")
    finally:
        sweep.verdicts += sorted(found, key=lambda verdict: place[verdict.schedule])
    return len(found) == len(schedules)


def selected(recording: Recording, only: Sequence[str]) -> tuple[str, ...]:
    """The points of these workers, or sites of workers; all if there are none.

    Raises:
        UnknownName: nothing was recorded there.
    """
    for one in only:
        known = {text for point in recording.points for text in (split(point).worker, "/".join(split(point)[:2]))}
        if one not in known:
            raise UnknownName("worker or site", one, known)
    wanted = set(only)
    return tuple(
        point for point in recording.points if not only or {split(point).worker, "/".join(split(point)[:2])} & wanted
    )


def alone(recording: Recording, points: Sequence[str], faults: Sequence[str]) -> Iterator[Fault]:
    """Each pair of point and fault that can be, once."""
    for point in points:
        for what in faults:
            fault = Fault.parse(done_at(point, what))
            if not (_impossible(recording, point, fault) or _elsewhere(recording, points, faults, fault)):
                yield fault


def _first(sweep: Sweep) -> Iterator[Schedule]:
    return (Schedule((fault,)) for fault in alone(sweep.recording, sweep.selected, sweep.faults))


def _again(sweep: Sweep, roles: Collection[str]) -> Iterator[Schedule]:
    """Each of those that have fired, with what comes behind it."""
    for verdict in sweep.verdicts:
        if verdict.fired:
            behind = _behind(sweep.recording, verdict, roles)
            yield from (Schedule((*verdict.schedule.faults, one)) for one in behind)


def _impossible(recording: Recording, point: str, fault: Fault) -> bool:
    if point in recording.checkpoints:
        return bool(fault.link) or fault.action != CRASH_BEFORE
    service = fault.link.removeprefix(f"{fault.worker}-")
    if service != fault.link:  # a link of its own, which it need not have, or has not been seen to use
        used = {one.site.partition(".")[0] for one in map(split, recording.points) if one.worker == fault.worker}
        return fault.link not in recording.links or service in PROTOCOLS - used
    if fault.link:
        return False
    effect = Effect(0, fault.site, (), b"", answered=point not in recording.unanswered)
    return bool(kinds.kind(fault.action).impossible(effect))


def _elsewhere(recording: Recording, points: Collection[str], faults: Collection[str], fault: Fault) -> bool:
    """Whether it is what the crash before the next point is, and both are asked for."""
    both = {CRASH_BEFORE, CRASH_AFTER} <= set(faults)
    return str(fault) == f"{fault.point}:{CRASH_AFTER}" and both and recording.same.get(fault.point) in points


def _behind(recording: Recording, verdict: Verdict, roles: Collection[str]) -> Iterable[Fault]:
    """What to break in a recovery: all that no fault-free run has shown, but for what repeats by itself.

    Where effects have names by keys, one without is a repeat, or its name by count stands for the first fault's effect.
    """
    known = {*recording.points, *recording.drifting}
    named = {split(point)[:2] for point in recording.points if split(point).alias}
    arrived = {event.point for event in verdict.history if isinstance(event, Arrived)}
    for name in names(verdict.history, roles):
        worker, site, alias = split(name)
        by_count = not alias and ((worker, site) in named or f"{worker}/{site}" in recording.background)
        if name not in known and (name in arrived or not by_count):
            for what in (CRASH_BEFORE,) if name in arrived else AGAIN:
                yield Fault.parse(f"{name}:{what}")


def _unbroken(sweep: Sweep) -> list[str]:
    """What a sweep has left out of what it says it does."""
    reasons = [f"nothing was broken at {point}" for point in sweep.selected if point not in sweep.broken]
    again = [verdict for verdict in sweep.verdicts if len(verdict.schedule.faults) > 1]
    if sweep.depth > 1 and not any(len(verdict.fired) > 1 for verdict in again):
        reasons.append(f"no recovery was broken: in none of {len(again)} schedules was a second point reached")
    return reasons


def _compare(sweep: Sweep, path: Path) -> list[str]:
    """What is different from the baseline; in a shard, which points are."""
    if sweep.shard != WHOLE:
        return _compare_points(sweep, path)
    text = sweep.baseline()
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return [f"there was no baseline {path}: it was written. Look at it, keep it with the tests, and sweep again"]
    before, now = set(path.read_text(encoding="utf-8").splitlines()), set(text.splitlines())
    found = [f"not in the baseline {path.name}: {line}" for line in sorted(now - before)]
    found += [f"in the baseline {path.name} and not found: {line}" for line in sorted(before - now)]
    return [*found, f"delete {path} to have it written anew"] if found else []


def _compare_points(sweep: Sweep, path: Path) -> list[str]:
    if not path.exists():
        return [f"there is no baseline {path}: a whole sweep writes it, not a shard"]
    before = {line.split("  ")[0] for line in path.read_text(encoding="utf-8").splitlines()}
    found = [f"not in the baseline {path.name}: {point}" for point in sorted(set(sweep.selected) - before)]
    return found + [f"in the baseline {path.name} and not found: {one}" for one in sorted(before - set(sweep.selected))]
