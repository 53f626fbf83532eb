"""How surely a sweep tells right from wrong: each seeded bug many times, and each correct brother as often.

Every run has a lane of its own: recorded, audited, swept. A twin is found when an invariant is broken, and it is the
one that the bug is about. Its brother is accused when a sweep of the same points by the same faults does not hold.
A brother of several twins that are looked for in the same way is swept for all of them.

…_found, …_schedules    of so many runs; at the median, how many schedules it took
…_held                  of so many runs of the brother
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from tests.twins.systems import TWINS

if TYPE_CHECKING:
    from chaos.sweep import Sweep
    from tests.twins.systems import Make, Twin


def sweep(session: Session, make: Make, twin: Twin, *, until_violated: bool) -> Sweep:
    """One sweep in a lane of its own."""
    with make(session) as system:
        return system.sweep(only=twin.only, faults=twin.faults, until_violated=until_violated)


def found(session: Session, twin: Twin) -> tuple[bool, int]:
    """Whether a sweep finds a twin, and after how many schedules."""
    swept = sweep(session, twin.system, twin, until_violated=True)
    violations = [one for verdict in (*swept.recording.runs, *swept.verdicts) for one in verdict.violations]
    right = swept.status == "violated" and {violation.invariant for violation in violations} == {twin.invariant}
    if not right:
        print(swept.story(events=True))
    return right, len(swept.verdicts)


def held(session: Session, twin: Twin) -> bool:
    """Whether its brother holds."""
    swept = sweep(session, twin.brother, twin, until_violated=False)
    if swept.status != "holds":
        print(swept.story(events=True))
    return swept.status == "holds"


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=10, help="of each twin (default: 10)")
    parser.add_argument("--brothers", type=int, default=10, help="runs of each brother (default: 10)")
    parser.add_argument("--only", nargs="*", default=list(TWINS), help="these twins (default: all)")
    options = parser.parse_args()
    figures: dict[str, float] = {"runs": options.runs, "brothers": options.brothers}
    swept: dict[tuple[object, ...], str] = {}  # which brother has been, and how
    for name in options.only:
        twin = TWINS[name]
        with tempfile.TemporaryDirectory(prefix="twins-") as directory, Session(Path(directory)) as session:
            runs = [found(session, twin) for _ in range(options.runs)]
            figures[f"{name}_found"] = sum(right for right, _ in runs)
            figures[f"{name}_schedules"] = statistics.median(count for _, count in runs)
            how = (*(getattr(twin.brother, "keywords", {}).items()), twin.only, twin.faults)
            if how not in swept:
                figures[f"{name}_held"] = sum(held(session, twin) for _ in range(options.brothers))
            else:
                figures[f"{name}_held"] = figures[f"{swept[how]}_held"]
            swept.setdefault(how, name)
        print({key: value for key, value in figures.items() if key.startswith(name)}, flush=True)
    report(figures, options.json)


if __name__ == "__main__":
    main()
