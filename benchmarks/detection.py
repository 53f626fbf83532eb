"""How soon each seeded bug is found, by four ways to look for it; written to ``docs/detection.md``.

random       a worker is killed at a random moment of each drill, as chaos tools do
hypothesis   schedules as Hypothesis draws them, up to three faults each
sweep        every point by every fault, once each
both         a sweep, then an exploration that is led to what was tried least

Each run has a lane of its own and so many seconds (--limit), recording included. What is not found by then counts as
that long.
Random kills cannot lose a reply nor have a commit refused: that is why they find less.

<way>_found                  of so many runs, over all twins
<twin>_<way>_schedules       drills to the first violation, the median
<twin>_<way>_seconds         likewise
"""

from __future__ import annotations

import functools
import itertools
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import arguments, report
from chaos import Schedule, Session
from chaos.exploration import Explorer
from chaos.schedule import Fault
from chaos.strategies import candidates, drawn, schedules
from tests.twins.systems import TWINS, TWO_FAULT_TWINS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, System, Verdict

    Way = Callable[[System, float, int], Iterator[Verdict]]

DOCUMENT = Path(__file__).parent.parent / "docs" / "detection.md"


def random_kills(system: System, until: float, seed: int) -> Iterator[Verdict]:
    """Kill one worker in each drill, at a moment that falls anywhere in a fault-free one."""
    rng, workload = random.Random(seed), system.workload
    usual = statistics.median(system.run(Schedule()).seconds for _ in range(3))

    def under_fire(run: Run) -> None:
        timer = threading.Timer(rng.uniform(0, usual), strike, (system, rng))
        timer.start()
        try:
            workload(run)
        finally:
            timer.join()

    system.workload = under_fire
    while time.monotonic() < until:
        yield system.run(Schedule())


def strike(system: System, rng: random.Random) -> None:
    """SIGKILL some worker now, as at a checkpoint, and have it brought back."""
    crew: Any = system.crew
    with system.lane.supervisor.changing():
        armed, member = crew._armed, rng.choice(list(crew._members.values()))  # noqa: SLF001 - no fault is like this
        if armed is None or member.doomed:
            return
        member.held, member.doomed, armed.held = member.held + 1, True, armed.held + 1
    fault = Fault(member.worker.name, "random")
    crew._recovery.add(functools.partial(crew._crash, member, fault, armed, member.process.pid))  # noqa: SLF001 - as above


def hypothesis_alone(system: System, until: float, seed: int) -> Iterator[Verdict]:
    """Schedules in the order in which they are drawn."""
    strategy = schedules(candidates(system.record()))
    for number in itertools.count():
        for schedule in drawn(strategy, 100, seed + 1000 * number):
            if time.monotonic() > until:
                return
            yield system.drill(schedule, report=False)


def swept(system: System, until: float, seed: int) -> Iterator[Verdict]:
    """Every point by every fault; what is beyond the limit was swept in vain."""
    del until, seed
    yield from system.sweep(until_violated=True).verdicts


def both(system: System, until: float, seed: int) -> Iterator[Verdict]:
    """A sweep, then an exploration."""
    yield from swept(system, until, seed)
    left = until - time.monotonic()
    if left > 0:
        yield from Explorer(system, left, seed=seed, times=0, shrink_s=0).run().verdicts


WAYS: dict[str, Way] = {"random": random_kills, "hypothesis": hypothesis_alone, "sweep": swept, "both": both}


def look(make: Any, invariant: str, way: Way, limit: float, seed: int) -> tuple[bool, int, float]:
    """Whether the bug was found, after how many drills and seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="detection-") as directory,
        Session(Path(directory)) as session,
        make(session) as system,
    ):
        began, count, found = time.monotonic(), 0, False
        for verdict in way(system, began + limit, seed):
            count += 1
            found = any(violation.invariant == invariant for violation in verdict.violations)
            if found:
                break
        seconds = time.monotonic() - began
        system._held.clear()  # noqa: SLF001 - a bug that shows late is not what this is about
    return found and seconds <= limit, count, min(seconds, limit)


def table(figures: dict[str, float], names: list[str], runs: int, limit: float) -> str:
    """The figures as a page."""
    lines = [
        "# How soon seeded bugs are found",
        "",
        f"Made by `python -m benchmarks.detection`: {runs} runs each, at most {limit:g} s, in one lane on two cores. A",
        "cell says in how many runs the bug was found, after how many drills and seconds at the median, recordings",
        "included. *random*: a worker is killed at a random moment of each drill. *hypothesis*: schedules as drawn.",
        "*both*: a sweep, then an exploration. The last two bugs need two faults in two workers.",
        "",
        "| bug | " + " | ".join(WAYS) + " |",
        "|---|" + "---|" * len(WAYS),
    ]
    for name in names:
        cells = []
        for way in WAYS:
            found, count, seconds = (figures[f"{name}_{way}_{what}"] for what in ("found", "schedules", "seconds"))
            cells.append(
                f"{found:.0f} of {runs}: {count:.0f}, {seconds:.1f} s" if found else f"not in {count:.0f} drills"
            )
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    total = " | ".join(f"**{figures[f'{way}_found']:.0f} of {runs * len(names)}**" for way in WAYS)
    return "\n".join([*lines, f"| all | {total} |", ""])


def main() -> None:
    """Measure, write the page, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=3, help="of each twin in each way (default: 3)")
    parser.add_argument("--limit", type=float, default=60, help="seconds for each run (default: 60)")
    twins = {**TWINS, **TWO_FAULT_TWINS}
    parser.add_argument(
        "--only", nargs="*", choices=list(twins), default=list(twins), help="these twins (default: all)"
    )
    options = parser.parse_args()
    figures: dict[str, float] = {"runs": options.runs, "limit_s": options.limit}
    for name, (way, how) in itertools.product(options.only, WAYS.items()):
        twin = twins[name]
        runs = [look(twin.system, twin.invariant, how, options.limit, seed) for seed in range(options.runs)]
        figures[f"{name}_{way}_found"] = sum(found for found, _, _ in runs)
        figures[f"{name}_{way}_schedules"] = statistics.median(count for _, count, _ in runs)
        figures[f"{name}_{way}_seconds"] = statistics.median(seconds for _, _, seconds in runs)
        print(name, way, runs, flush=True)
    figures |= {f"{way}_found": sum(figures[f"{name}_{way}_found"] for name in options.only) for way in WAYS}
    if set(options.only) == set(twins):
        DOCUMENT.write_text(table(figures, options.only, options.runs, options.limit), encoding="utf-8")
    report(figures, options.json)


if __name__ == "__main__":
    main()
