"""Reports of shards made into one, and a report told on a terminal.

Shards of a sweep hold together if all are there, each holds, and every point was broken in one of them. What several
machines have explored is added up. What was merged can be merged with more: nothing of what one has to say is kept if
it is no longer so.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.report.data import Report
from chaos.schedule import Schedule
from chaos.sweep import Shard, table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.report.data import Outcome

_SOME, _LONG = 10, 100
_MISSING, _UNBROKEN = "shards are missing: ", "nothing was broken at "


def status(outcomes: Iterable[Outcome], reasons: Sequence[str]) -> str:
    """What follows from outcomes: violated if one is, unknown if one is or something is missing, else holds."""
    found = {one.status for one in outcomes}
    if "violated" in found:
        return "violated"
    return "unknown" if "unknown" in found or reasons or "holds" not in found else "holds"


def merged(reports: Sequence[Report]) -> Report:
    """One report of several of the same kind about the same system.

    Raises:
        ChaosError: there is none, or they are about different things, or two are the same shard.
    """
    if not reports:
        raise ChaosError("there is no report to merge")
    first = reports[0]
    for other in reports[1:]:
        for name in ("kind", "system", "points", "faults", "depth"):
            mine, theirs = getattr(first, name), getattr(other, name)
            if name == "points":  # keys that are worked on side by side come in any order
                mine, theirs = sorted(mine), sorted(theirs)
            if mine != theirs and not (first.kind == "explore" and name in {"points", "faults"}):
                raise ChaosError(f"reports of different runs: one has {name} {_short(mine)}, another {_short(theirs)}")
    outcomes = tuple(outcome for report in reports for outcome in report.outcomes)
    said = (reason for report in reports for reason in report.reasons)
    reasons = [reason for reason in said if not reason.startswith((_MISSING, _UNBROKEN))]
    shard = _missing(reports, reasons)
    if first.kind == "sweep" and not shard:
        broken = {point_of(one) for one in outcomes if _began(one)}
        reasons += [f"{_UNBROKEN}{point}" for point in first.points if point not in broken]
        if first.depth > 1 and not any(len(one.fired) > 1 for one in outcomes):
            reasons.append("no recovery was broken: in no schedule was a second point reached")
    return Report(
        first.kind,
        first.system,
        status(outcomes, reasons),
        max(report.seconds for report in reports),
        outcomes,
        points=first.points,
        faults=first.faults,
        reasons=tuple(dict.fromkeys(reasons)),
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
        shard=shard,
        depth=first.depth,
    )


def point_of(outcome: Outcome) -> str:
    """The point of its first fault; an empty text where there is none."""
    faults = Schedule.parse(outcome.schedule).faults
    return faults[0].point if faults else ""


def _began(outcome: Outcome) -> bool:
    """Whether its first fault has fired."""
    return bool(outcome.fired) and outcome.fired[0][0] == str(Schedule.parse(outcome.schedule).faults[0])


def _missing(reports: Sequence[Report], reasons: list[str]) -> str:
    """The shards that are there, if not all; `reasons` are told which are not. An empty text where nothing is."""
    shards = [Shard.parse(shard) for report in reports for shard in report.shard.split()]
    if not shards:
        return ""
    whole = not all(report.shard for report in reports)
    if len(set(shards)) < len(shards) or len({shard.count for shard in shards}) > 1 or whole:
        raise ChaosError(f"not the shards of one run: {', '.join(report.shard or 'a whole' for report in reports)}")
    missing = {Shard(number, shards[0].count) for number in range(1, shards[0].count + 1)} - set(shards)
    if not missing:
        return ""
    reasons.append(f"{_MISSING}{_listed(missing, ', ')}")
    return _listed(shards, " ")


def _listed(shards: Iterable[Shard], between: str) -> str:
    return between.join(map(str, sorted(shards, key=lambda shard: shard.number)))


def story(report: Report) -> str:
    """A report in words: what was run, the table of its points, and each schedule that does not hold."""
    count = Counter(outcome.status for outcome in report.outcomes)
    shown = ", ".join(f"{number} {one}" for one, number in count.items())
    missed = sum(bool(outcome.not_reached) for outcome in report.outcomes)
    lines = [f"{report.status}: {report.kind} of {report.system}, {len(report.outcomes)} schedules"]
    lines[0] += f", shard {report.shard}" if report.shard else ""
    lines += [f"  schedules   {shown or 'none'}; {missed} in which a fault was not reached"]
    lines += [f"  note        {note}" for note in report.notes]
    lines += [f"  unknown     {reason}" for reason in report.reasons]
    if report.kind == "sweep":
        rows = [(point_of(one), one.status, bool(one.not_reached)) for one in report.outcomes]
        lines += [f"  {line}" for line in table(report.points, rows).splitlines()]
    wrong = [one for one in report.outcomes if one.status in {"violated", "unknown"}]
    for one in wrong[:_SOME]:
        again = f" ({one.reproduced} of {one.again} runs)" if one.again else ""
        lines += [f"  {one.status}: {one.schedule or 'no fault'}{again}"]
        lines += [
            f"    {finding.invariant}: {finding.alias or finding.key} {finding.detail}" for finding in one.findings
        ]
        lines += [f"    {reason}" for reason in one.reasons]
    lines += [f"  … and {len(wrong) - _SOME} more that do not hold"] if len(wrong) > _SOME else []
    return "\n".join(lines)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= _LONG else f"{text[:_LONG]}…"
