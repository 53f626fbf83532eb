"""Reports of what a run has told: drills, sweeps, explorations. Written beside each other, JSON and page, always."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from msgspec import structs

from chaos.drill import Verdict
from chaos.history import Named
from chaos.report import data
from chaos.report.data import Finding, Outcome, Report
from chaos.report.merge import status
from chaos.report.timeline import page
from chaos.sweep import WHOLE, Sweep, outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from chaos.errors import Told
    from chaos.exploration import Exploration

_WRONG, _RIGHT = 40, 3  # schedules of which the history is kept: of those that do not hold, and of the others


def reports(told: Iterable[Told], system: str, replay: Callable[[str], str] = str) -> Iterator[Report]:
    """A report for each sweep and exploration; one for all drills. `replay` makes the command for a schedule."""
    drills: list[Verdict] = []
    for one in told:
        if isinstance(one, Verdict):
            drills.append(one)
        else:
            yield _of_sweep(one, system, replay) if isinstance(one, Sweep) else _of_exploration(one, system)
    if drills:
        outcomes = tuple(
            structs.replace(one, status=drill.status)  # who has asked for what cannot be done has to be told
            for one, drill in zip(_outcomes(drills, replay), drills, strict=True)
        )
        yield Report("drill", system, status(outcomes, ()), sum(one.seconds for one in drills), outcomes)


def write(directory: Path, some: Sequence[Report]) -> list[Path]:
    """Write each as JSON and as a page; the pages' paths."""
    pages = []
    for number, report in enumerate(some, 1):
        mark = f"-{number}" if len(some) > 1 else ""
        data.write(directory / f"report{mark}.json", report)
        pages.append(directory / f"timeline{mark}.html")
        pages[-1].write_text(page(report), encoding="utf-8", errors="backslashreplace")
    return pages


def _of_sweep(sweep: Sweep, system: str, replay: Callable[[str], str]) -> Report:
    return Report(
        "sweep",
        system,
        sweep.status,
        sweep.seconds,
        _outcomes([*(run for run in sweep.recording.runs if run.status != "holds"), *sweep.verdicts], replay),
        points=sweep.selected,
        faults=sweep.faults,
        reasons=tuple(sweep.reasons),
        notes=(sweep.schedule, f"audited: {sweep.recording.audited}", *map(str, sweep.recording.advice)),
        shard="" if sweep.shard == WHOLE else str(sweep.shard),
        depth=sweep.depth,
    )


def _of_exploration(one: Exploration, system: str) -> Report:
    example = one.counterexample
    verdicts = [verdict for verdict in one.verdicts if example is None or verdict is not example.found]
    outcomes, found = _outcomes(verdicts, one.replay), tuple[str, ...]()
    if example is not None:
        again = {"again": example.runs, "reproduced": example.violated}
        outcomes = (structs.replace(_outcome(example.smallest, one.replay, history=True), **again), *outcomes)
        found = (f"found as {str(example.found.schedule) or 'no fault'}",)
    notes = (*found, one.schedule, f"seed {one.seed}", f"covered: {one.coverage}", f"audited: {one.recording.audited}")
    return Report(
        "explore",
        system,
        one.status,
        one.seconds,
        outcomes,
        points=one.recording.points,
        reasons=tuple(one.reasons),
        notes=(*notes, *one.notes),
    )


def _outcomes(verdicts: Iterable[Verdict], replay: Callable[[str], str]) -> tuple[Outcome, ...]:
    """Their outcomes; with their histories as far as somebody will look at them."""
    room = {True: itertools.count(-_WRONG), False: itertools.count(-_RIGHT)}
    return tuple(
        _outcome(one, replay, history=next(room[one.status == "violated" or bool(one.reasons)]) < 0) for one in verdicts
    )


def _outcome(verdict: Verdict, replay: Callable[[str], str], *, history: bool) -> Outcome:
    aliases = {event.key: event.alias for event in verdict.history if isinstance(event, Named)}
    findings = tuple(
        Finding(one.invariant, one.key, aliases.get(one.key, ""), one.detail, tuple(map(str, one.records)))
        for one in verdict.violations
    )
    return Outcome(
        str(verdict.schedule),
        outcome(verdict),
        verdict.seconds,
        tuple((fired.fault, f"{fired.worker} {fired.ended}") for fired in verdict.fired),
        findings,
        tuple(verdict.reasons),
        tuple(map(str, verdict.not_reached)),
        replay=replay(str(verdict.schedule)) if verdict.status != "holds" else "",
        history=tuple(verdict.history) if history and len(verdict.history) > 1 else (),
    )
