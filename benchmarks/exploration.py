"""Exploration: that it accuses nobody wrongly, and how soon it finds what needs two faults in two workers.

explored, …_violated, …_unknown    of the correct pipeline (two payment replicas, four partitions, three orders), half
                                   with static and half with dynamic members of the payment group; both have to be 0,
                                   or the reasons are printed
…_not_reached                      how many of these were judged as shorter schedules
…_per_minute                       judged; faults that wait, such as freezes, included
<twin>_found, <twin>_seconds       of so many runs within three minutes each; the median, recording included
<twin>_most_seconds                of the slowest
<twin>_brother_accused             of the schedules that the brother was explored by
"""

from __future__ import annotations

import functools
import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from chaos.exploration import Explorer
from tests.fix_pipeline import thin_pipeline
from tests.twins.systems import TWO_FAULT_TWINS

if TYPE_CHECKING:
    from chaos import Exploration, Verdict
    from chaos.lanes import Make

LIMIT_S = 180.0


def explored(
    make: Make, lanes: int, seconds: float, count: int | None, *, seed: int, invariant: str = ""
) -> Exploration:
    """One exploration, in lanes of its own; what it finds is not made smaller.

    Every drill that is unknown, or breaks another invariant than this, is told in full while its ledgers are there.
    """
    with (
        tempfile.TemporaryDirectory(prefix="exploration-") as directory,
        Session(Path(directory)) as session,
        session.lanes(make, lanes) as several,
    ):
        found = Explorer(several, seconds, count=count, seed=seed, times=0, shrink_s=0).run()
        print(found.story().splitlines()[0], *found.reasons, sep="\n  ", flush=True)
        for verdict in found.verdicts:
            if verdict.reasons or broken(verdict) - {invariant}:
                print(verdict.story(events=True), flush=True)
    return found


def broken(verdict: Verdict) -> set[str]:
    """The invariants that it says were."""
    return {violation.invariant for violation in verdict.violations}


def correct(lanes: int, count: int) -> dict[str, float]:
    """The correct pipeline."""
    figures: dict[str, float] = {"explored": count}
    for membership in ("static", "dynamic"):
        make = functools.partial(thin_pipeline, replicas=2, partitions=4, dynamic=membership == "dynamic")
        found = explored(make, lanes, 3600, count // 2, seed=1)
        figures |= {
            f"{membership}_violated": sum(one.status == "violated" for one in found.verdicts),
            f"{membership}_unknown": sum(one.status == "unknown" and not one.unfit for one in found.verdicts),
            f"{membership}_unfit": sum(bool(one.unfit) for one in found.verdicts),
            f"{membership}_not_reached": sum(bool(one.not_reached) for one in found.verdicts),
            f"{membership}_per_minute": 60 * len(found.verdicts) / found.seconds,
        }
    return figures


def twins(lanes: int, runs: int, brother_s: float) -> dict[str, float]:
    """Those that need two faults, and their brothers."""
    figures: dict[str, float] = {}
    for name, twin in TWO_FAULT_TWINS.items():
        seconds, found = [], 0
        for run in range(runs):
            one = explored(twin.system, lanes, LIMIT_S, None, seed=run, invariant=twin.invariant)
            right = set().union(*map(broken, one.verdicts)) == {twin.invariant}
            found += right and one.seconds <= LIMIT_S
            seconds.append(one.seconds)
            print(f"{name} {run}: {len(one.verdicts)} schedules, {one.seconds:.1f} s, {one.counterexample}", flush=True)
        brother = explored(twin.brother, lanes, brother_s, None, seed=1)
        figures |= {
            f"{name}_found": found,
            f"{name}_seconds": statistics.median(seconds),
            f"{name}_most_seconds": max(seconds),
            f"{name}_brother_explored": len(brother.verdicts),
            f"{name}_brother_accused": sum(verdict.status == "violated" for verdict in brother.verdicts),
        }
    return figures


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--count", type=int, default=5000, help="schedules of the correct pipeline (default: 5000)")
    parser.add_argument("--lanes", type=int, default=2, help="side by side (default: 2)")
    parser.add_argument("--runs", type=int, default=10, help="of each twin (default: 10)")
    parser.add_argument("--brother", type=float, default=60, help="seconds for each brother (default: 60)")
    options = parser.parse_args()
    figures = correct(options.lanes, options.count) if options.count else {}
    if options.runs:
        figures |= twins(options.lanes, options.runs, options.brother)
    report(figures, options.json)


if __name__ == "__main__":
    main()
