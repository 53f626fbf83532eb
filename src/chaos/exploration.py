"""Explore combinations of faults: what no sweep of single faults, nor of recoveries, can try in full.

Hypothesis draws schedules over what a recording shows (`chaos.strategies`), about a hundred at a time; a `Guide` picks
those that try what was tried least; each is carried out, settled and judged like any drill. What recoveries show can be
broken from the next round on. A schedule that violates is run again, to say how often it does. An exploration ends with
its budget of seconds, with a schedule that violates nearly every time, or with some that do so less often; the one that
did most often is made smaller (`chaos.shrink`), in a budget of its own. Where a fault-free run of the recording was
violated, the schedule without a fault is the first that is tried.

A counterexample is one line of text. It is kept in Hypothesis's database of examples, under the exploration's name, and
tried first the next time; one that holds every time by then is said to be fixed, and forgotten.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.drill import Result
from chaos.errors import ChaosError, UnknownName
from chaos.guide import Guide, Kind
from chaos.recording import names
from chaos.schedule import CRASH_BEFORE, Fault, Schedule, split
from chaos.shrink import shrink
from chaos.strategies import MAX_FAULTS, Saved, candidates, drawn, schedules
from chaos.sweep import INTERRUPTED, carried_out, outcome
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from chaos.drill import Verdict
    from chaos.ground import Body, Ground
    from chaos.recording import Recording

TIMES = 10
SECONDS = 60.0
SHRINK_S = 60.0
_ROUND, _CHOICES = 32, 3  # schedules a round, and how many are drawn for each
_SOME = 5
_SURE = 0.9  # a schedule that violates in so many of its runs can be replayed
_CANDIDATES = 5  # that may violate less often, before the search ends with one of them
_RARER = 0.1  # a smaller schedule may violate in so much less of its runs, beside what is chance
_AGAIN = re.compile(r"~\d+/")


@dataclass
class Counterexample:
    """A schedule that violates, as `found`, and the smallest that was found to do so; how often that did of `runs`.

    It took `seconds` to run it again and to make it smaller.
    """

    found: Verdict
    smallest: Verdict
    runs: int = 0
    violated: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """From 0 to 1."""
        return self.violated / self.runs if self.runs else 1.0

    def __str__(self) -> str:
        runs = f"violated in {self.violated} of {self.runs} runs" if self.runs else "violated, and was not run again"
        return f"{_text(self.smallest.schedule)}: {runs}"


@dataclass
class Exploration(Result):
    """What an exploration has shown. `verdicts` has one for each schedule; those that hold have no history left.

    `replay` makes the command that runs a schedule again. `notes` say among others which counterexamples of earlier
    runs are fixed.
    """

    recording: Recording
    max_faults: int
    seed: int
    replay: Callable[[str], str] = str
    verdicts: list[Verdict] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counterexample: Counterexample | None = None
    seconds: float = 0.0
    coverage: str = ""

    @property
    def status(self) -> str:
        """``holds``, ``violated`` or ``unknown``."""
        found = {outcome(verdict) for verdict in (*self.recording.runs, *self.verdicts)}
        if "violated" in found:
            return "violated"
        tried = any(verdict.status == "holds" for verdict in self.verdicts)
        return "unknown" if "unknown" in found or self.reasons or not tried else "holds"

    @property
    def schedule(self) -> str:
        """What it was, in a few words."""
        return f"exploration of schedules of up to {self.max_faults} faults"

    def story(self, *, events: bool = False) -> str:
        """What was tried, what was reached, and each schedule that does not hold; the line that replays it."""
        count = Counter(map(outcome, self.verdicts))
        shown = ", ".join(f"{number} {one}" for one, number in count.items())
        missed = sum(bool(verdict.not_reached) for verdict in self.verdicts)
        rate = 60 * len(self.verdicts) / self.seconds if self.seconds else 0
        lines = [f"{self.status}: {self.schedule}, {len(self.verdicts)} in {self.seconds:.1f} s ({rate:.0f}/min)"]
        lines += [
            f"  schedules   {shown or 'none'}; {missed} in which a fault was not reached",
            f"  seed        {self.seed}",
        ]
        lines += [f"  covered     {self.coverage}"] if self.coverage else []
        lines += [f"  audited     {self.recording.audited}"]
        lines += [f"  note        {note}" for note in self.notes]
        lines += [f"  unknown     {reason}" for reason in self.reasons]
        wrong = [verdict for verdict in self.verdicts if outcome(verdict) in {"violated", "unknown"}]
        if (example := self.counterexample) is not None:
            lines += [f"  found       {_text(example.found.schedule)}", f"  smallest    {example}"]
            lines += [f"  explained   in {example.seconds:.1f} s"] if example.seconds else []
            lines += [f"  replay      {self.replay(str(example.smallest.schedule))}"]
            told = {example.found.schedule, example.smallest.schedule}
            wrong = [example.smallest, *(one for one in wrong if one.schedule not in told or one.status == "unknown")]
        for number, verdict in enumerate(wrong[:_SOME]):
            lines += [f"  {line}" for line in verdict.story(events=events and not number).splitlines()]
        lines += [f"  … and {len(wrong) - _SOME} more that do not hold"] if len(wrong) > _SOME else []
        return "\n".join(lines)


@dataclass
class Explorer:
    """One exploration under way; see `chaos.ground.Ground.explore` for its parameters."""

    ground: Ground
    seconds: float = SECONDS
    max_faults: int = MAX_FAULTS
    count: int | None = None
    faults: Sequence[str] | None = None
    only: Sequence[str] = ()
    pinned: Sequence[Schedule] = ()
    seed: int | None = None
    times: int = TIMES
    shrink_s: float = SHRINK_S
    saved: Saved = field(default_factory=lambda: Saved(None, ""))
    replay: Callable[[str], str] = str
    body: Body | None = None
    result: Exploration = field(init=False)
    _guide: Guide = field(init=False)
    _deadline: Deadline = field(init=False)
    _known: set[str] = field(init=False)
    _again: dict[Fault, None] = field(init=False, default_factory=dict)  # what recoveries have shown
    _unfit: set[Kind] = field(init=False, default_factory=set)
    _begun: int = field(init=False, default=0)

    def run(self) -> Exploration:
        """Explore.

        Raises:
            ChaosError: there is no budget, or nothing to break; or what the database has is another system's.
        """
        if self.seconds <= 0:
            raise ChaosError(f"a budget of {self.seconds:g} s: nothing can be explored in it")
        began = time.monotonic()
        recording = self._begin()
        with self._telling(began):
            if not recording.reasons:
                choices = candidates(recording, faults=self.faults, only=self.only)
                self._known = {*recording.points, *recording.drifting}
                self._guide = Guide(choices)
                self._deadline = Deadline(self.seconds)
                self._recall()
                if self.result.counterexample is None:
                    needless = [Schedule()] if recording.violations else []
                    self._search_on(itertools.chain(needless, self._search(choices)))
                    self._require_tried()
                for late in filter(_violated, self.result.verdicts):  # it may have been found when its lane was left
                    if self.result.counterexample is None:
                        self.result.counterexample = self._rated(late)
                self.result.seconds = time.monotonic() - began
                if self.result.counterexample is not None:
                    self._make_smaller(self.result.counterexample)
        return self.result

    def replayed(self, schedule: Schedule) -> Exploration:
        """Only run this schedule, so many times; where it always holds, it says so.

        Also where the fault-free runs prove nothing: a bug that needs no fault shows in some of them too.

        Raises:
            UnknownName: the system has no such worker, or its recording no such point.
        """
        began = time.monotonic()
        recording = self._begin()
        with self._telling(began):
            runs = self._run(schedule, self.times, all_of_them=True)
            self.result.verdicts += runs
            if _violated(runs[-1]):
                self.result.counterexample = Counterexample(runs[-1], runs[-1], len(runs), _violations(runs))
            elif not all(map(_in_full, runs)):
                self.result.reasons.append(f"{_text(schedule)} was not carried out in full in each of {len(runs)} runs")
            elif not (recording.violations or recording.reasons):
                self.result.notes.append(_fixed(schedule, runs))
        return self.result

    @contextlib.contextmanager
    def _telling(self, began: float) -> Iterator[None]:
        """Tell what was found also if it ends early; a counterexample that is not explained yet is kept."""
        try:
            yield
        except BaseException as error:
            interrupted, unfit = isinstance(error, KeyboardInterrupt), bool(self.result.reasons)
            self.result.reasons.append(INTERRUPTED if interrupted else f"{type(error).__name__}: {error}")
            if self.result.counterexample is not None:
                self.saved.add(self.result.counterexample.smallest.schedule)
            if interrupted or self.result.verdicts or unfit:
                self.ground.tell(self.result)
            if interrupted:
                raise KeyboardInterrupt from None  # see `chaos.sweep.run_sweep`
            raise
        finally:
            self.result.seconds = self.result.seconds or time.monotonic() - began

    def _begin(self) -> Recording:
        recording = self.ground.record()
        seed = random.getrandbits(32) if self.seed is None else self.seed
        reasons = [*recording.violations, *recording.reasons]
        self.result = Exploration(recording, self.max_faults, seed, self.replay, reasons=reasons)
        return recording

    # -- what is known already -----------------------------------------------------------------------------------

    def _recall(self) -> None:
        """Try the pinned schedules, and the counterexamples of earlier runs."""
        self.result.counterexample = self._try(iter(self.pinned))
        for schedule in self.saved:
            if self.result.counterexample is not None:
                return
            if self._deadline.passed:
                self.result.reasons.append(
                    f"the budget was spent before an earlier counterexample was tried: {schedule}"
                )
                continue
            self._require_known(schedule)
            try:
                runs = self._run(schedule, self.times)
            except UnknownName as error:
                self.saved.drop(schedule)
                self.result.notes.append(f"an earlier counterexample cannot be run any more: {schedule} ({error})")
                continue
            self.result.verdicts += runs
            if _violated(runs[-1]):
                self.result.counterexample = self._rated(runs[-1])
            elif all(map(_in_full, runs)):
                self.saved.drop(schedule)
                self.result.notes.append(_fixed(schedule, runs))
            else:
                self.result.notes.append(f"kept, as it was not carried out in full in each run: {_text(schedule)}")

    def _require_tried(self) -> None:
        if not self._begun:
            self.result.reasons.append(f"the budget of {self.seconds:g} s was spent before a schedule was tried")
        elif all(verdict.unfit for verdict in self.result.verdicts):
            self.result.reasons.append("no schedule could be carried out: every fault that was tried is unfit")

    def _require_known(self, schedule: Schedule) -> None:
        roles = [worker.name for worker in self.ground.workers]
        for fault in schedule.faults:
            if fault.worker not in roles:
                error = UnknownName("worker", fault.worker, roles)
                raise ChaosError(f"the database of examples is another system's: it has {schedule}; {error}")

    # -- the search ----------------------------------------------------------------------------------------------

    def _search_on(self, some: Iterator[Schedule]) -> None:
        """Try schedules until one violates nearly every time, or some do less often; kept is what does most often."""
        best: Counterexample | None = None
        for number in range(_CANDIDATES):
            one = self._try(some)
            if one is not None and (best is None or one.rate > best.rate):
                # The best of several owes it to chance in part, so it has to show its rate once more.
                best = self.result.counterexample = self._rated(one.found) if number else one
            if one is None or one.rate >= _SURE:
                return

    def _search(self, choices: Sequence[Fault]) -> Iterator[Schedule]:
        """Schedules that were not tried, the most promising of some at a time, until the budget is spent."""
        seen: set[Schedule] = set()
        for number in itertools.count():
            fit, later = ([one for one in some if Kind.of(one) not in self._unfit] for some in (choices, self._again))
            if not fit:
                return
            strategy = schedules(fit, max_faults=self.max_faults, later=later)
            some = drawn(strategy, _ROUND * _CHOICES, self.result.seed + number)
            new = [schedule for schedule in some if schedule not in seen]
            if not new:
                self.result.notes.append("nothing is left to try: every schedule that was drawn had been tried")
                return
            for _ in range(-(-len(new) // _CHOICES)):
                if self._over():
                    return
                best = self._guide.best(new)
                new.remove(best)
                seen.add(best)
                self._guide.tries(best)
                self._begun += 1
                yield best

    def _over(self) -> bool:
        return self._deadline.passed or (self.count is not None and self._begun >= self.count)

    def _try(self, some: Iterator[Schedule]) -> Counterexample | None:
        """Carry out schedules until one violates, and say how often it does."""
        found: list[Verdict] = []
        for verdict in carried_out(self.ground, some, _violated, self.body):
            self.result.verdicts.append(verdict)
            if _violated(verdict):
                found.append(verdict)
                self.result.counterexample = self.result.counterexample or Counterexample(verdict, verdict)
            self._learn(verdict)
            self.ground.live(f"{self._progress()} · {self._deadline.left:.0f} s left")
            if verdict.status == "holds":
                verdict.history = verdict.history[:1]  # there may be thousands; the lane's file has it all
        return self._rated(found[0]) if found else None

    def _progress(self) -> str:
        done = self.result.verdicts
        wrong = Counter(map(outcome, done))
        rate = 60 * len(done) / max(0.1, self._deadline.seconds - self._deadline.left)
        counted = f"{wrong['violated']} violated, {wrong['unknown']} unknown"
        return f"explored {len(done)} · {rate:.0f}/min · {self._guide.coverage} · {counted}"

    def _learn(self, verdict: Verdict) -> None:
        self._guide.learn(verdict)
        self.result.coverage = self._guide.coverage
        unfit = [one for one in verdict.schedule.faults if any(text.startswith(f"{one} ") for text in verdict.unfit)]
        self._unfit |= set(map(Kind.of, unfit))
        roles = {worker.name for worker in self.ground.workers}
        for name in names(verdict.history, roles):
            if split(name).alias and _AGAIN.sub("~0/", name) not in self._known:
                self._known.add(_AGAIN.sub("~0/", name))
                self._again |= dict.fromkeys(Fault.parse(f"{name}:{what}") for what in (CRASH_BEFORE, "crash-after"))

    # -- what was found ------------------------------------------------------------------------------------------

    def _rated(self, found: Verdict) -> Counterexample:
        """How often it violates."""
        began = time.monotonic()
        runs = self._run(found.schedule, self.times, all_of_them=True)
        return Counterexample(found, found, len(runs), _violations(runs), time.monotonic() - began)

    def _make_smaller(self, example: Counterexample) -> None:
        """As long as it violates about as often; and keep it."""
        began = time.monotonic()
        found: dict[Schedule, Verdict] = {example.found.schedule: example.found}

        def violates(schedule: Schedule, times: int) -> bool:
            try:
                last = self._run(schedule, times)[-1]
            except ChaosError:  # there is no such point
                return False
            found[schedule] = last
            return _violated(last)

        deadline = Deadline(self.shrink_s)
        _, *steps = shrink(example.found.schedule, violates, example.rate, deadline, self.faults)
        if deadline.passed:
            self.result.notes.append(f"{self.shrink_s:g} s to make it smaller were spent: it may not be the smallest")
        enough = example.rate - _RARER - math.sqrt(example.rate * (1 - example.rate) / max(1, self.times))
        for step in reversed(steps):
            runs = self._run(step, self.times, all_of_them=True)
            if _violations(runs) >= enough * len(runs):
                example.smallest, example.runs, example.violated = found[step], len(runs), _violations(runs)
                break
        self.saved.add(example.smallest.schedule)
        example.seconds += time.monotonic() - began

    def _run(self, schedule: Schedule, times: int, *, all_of_them: bool = False) -> list[Verdict]:
        """Run a schedule so many times, or until it violates; what violated comes last."""
        verdicts = carried_out(
            self.ground, [schedule] * times, lambda verdict: _violated(verdict) and not all_of_them, self.body
        )
        return sorted(verdicts, key=_violated)


def _text(schedule: Schedule) -> str:
    return str(schedule) or "no fault"


def _fixed(schedule: Schedule, runs: Sequence[Verdict]) -> str:
    return f"FIXED: {_text(schedule)} holds in {len(runs)} of {len(runs)} runs"


def _in_full(verdict: Verdict) -> bool:
    return verdict.status == "holds" and not verdict.not_reached


def _violated(verdict: Verdict) -> bool:
    return verdict.status == "violated"


def _violations(verdicts: Collection[Verdict]) -> int:
    return sum(map(_violated, verdicts))
