"""How surely the drill "crash before commit" tells right from wrong: each twin and the correct pipeline, many times.

Every run has a lane of its own. A twin counts as found when the verdict is `violated` by the invariant that it breaks;
the correct pipeline counts as holding when the verdict is `holds`, with its fault fired.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from pipeline.process import payment
from tests.fix_pipeline import thin_pipeline
from tests.twins import new_key_per_attempt, no_inbox_no_key, offset_before_effect

if TYPE_CHECKING:
    from collections.abc import Callable

CHARGED = "payment/payment.charged#1:crash-before"
COMMITTED = "payment/payment.offset_committed#1:crash-before"
CASES: dict[str, tuple[Callable[[], object], str, str]] = {
    "correct_holds": (payment.main, CHARGED, ""),
    "new_key_per_attempt_found": (new_key_per_attempt.main, CHARGED, "one effect per key"),
    "no_inbox_no_key_found": (no_inbox_no_key.main, CHARGED, "one effect per key"),
    "offset_before_effect_found": (offset_before_effect.main, COMMITTED, "nothing lost"),
}


def as_expected(session: Session, case: str) -> bool:
    """Whether one drill of a case, in a lane of its own, ends as it must; if not, its story is told."""
    consumer, schedule, broken = CASES[case]
    with thin_pipeline(session, consumer) as system:
        verdict = system.drill(schedule)
    found = {violation.invariant for violation in verdict.violations}
    right = found == {broken} if broken else verdict.status == "holds" and len(verdict.fired) == 1
    if not right:
        print(f"{case}: {verdict.story(events=True)}")
    return right


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--runs", type=int, default=20, help="of each (default: 20)")
    options = parser.parse_args()
    figures: dict[str, float] = {"runs": options.runs}
    with tempfile.TemporaryDirectory(prefix="twins-") as directory, Session(Path(directory)) as session:
        for case in CASES:
            figures[case] = sum(as_expected(session, case) for _ in range(options.runs))
    report(figures, options.json)


if __name__ == "__main__":
    main()
