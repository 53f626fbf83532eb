"""What it costs that links take a detour through Toxiproxy, without a toxic: the crash loop with and without, in turns.

plain_per_minute     crash schedules a minute, as in `benchmarks.crash_loop`: no link takes a detour
detoured_per_minute  the same, with every link of every worker by way of Toxiproxy
throughput_ratio     the second by the first, the median of all turns
"""

from __future__ import annotations

import random
import statistics
import sys
from typing import TYPE_CHECKING

from benchmarks.crash_loop import one_order, per_minute, session
from benchmarks.report import arguments, report
from tests.fix_pipeline import thin_pipeline

if TYPE_CHECKING:
    from chaos import Schedule, System

TOXIC = "latency=0.1,latency_ms:1"
EVERY_LINK = (
    f"postgres:{TOXIC}@payment/postgres.commit#1; kafka:{TOXIC}@payment/kafka.offset_commit#1; "
    f"gateway:{TOXIC}@payment/http.post#1"
)
LINKS = {f"{worker}.0-postgres" for worker in ("api", "relay", "payment")} | {
    "relay.0-kafka",
    "payment.0-kafka",
    "payment.0-gateway",
}


def keep_detours(system: System) -> None:
    """Have every link take a detour, from here on."""

    def stay(schedule: Schedule) -> None:
        """It would lead those back that this does not name."""

    system.drill(EVERY_LINK).require_holds()
    taken = {link.name for link in system.lane.links.misled(set())}
    if not taken >= LINKS:
        sys.exit(f"Detours are taken by {taken}, but not by {LINKS - taken}.")
    system.crew.reroute = stay  # type: ignore[method-assign]


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--turns", type=int, default=6, help="of each of the two (default: 6)")
    parser.add_argument("--seconds", type=float, default=10, help="for each turn (default: 10)")
    options = parser.parse_args()
    plain, detoured = list[float](), list[float]()
    with (
        session() as one,
        thin_pipeline(one, workload=one_order) as system,
        thin_pipeline(one, workload=one_order) as other,
    ):
        keep_detours(other)
        for turn in range(options.turns):
            plain.append(per_minute(system, options.seconds, random.Random(turn)))
            detoured.append(per_minute(other, options.seconds, random.Random(turn)))
    figures = {
        "plain_per_minute": statistics.median(plain),
        "detoured_per_minute": statistics.median(detoured),
        "throughput_ratio": statistics.median(after / before for before, after in zip(plain, detoured, strict=True)),
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
