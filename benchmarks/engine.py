"""The engine on the whole thin pipeline: API, relay, two payment replicas, four partitions; judged, nothing skipped.

schedules_per_minute_1_lane   one order a schedule, a random point of the recording broken by one of crash-before,
                              crash-after, lose-request, lose-reply; killed, recovered, settled, judged
…_2_lanes, …_4_lanes          the same, side by side in one process
wire_overhead_percent         the fault-free loop, one order a drill, settled and judged: through the wire, against the
                              same workers that are told the servers' own addresses; pairs in turn, the median
order_overhead_percent        of the same loop only the time from the order to its charge
sweep_points, sweep_s         three interleaved orders, every recorded point by every fault; both recordings included
sweep_schedules, sweep_unfit  how many that were, and how many pairs turned out to be impossible
denominators_equal            whether five more recordings have the same points
sweeps, violated, unknown     the same sweep again and again (--sweeps): how many, and what they found
depth2_s, depth2_schedules    break again at every point of each recovery
dynamic_…                     sweeps with dynamic members of the payment group, session time-out 0.5 s
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.report import arguments, report
from chaos import Schedule, Session
from tests.fix_pipeline import place_orders, thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Run, System

FAULTS = ("crash-before", "crash-after", "lose-request", "lose-reply")
LOOP = 40
PAUSE_S = 0.02


def one_order(run: Run) -> None:
    """The workload of one schedule."""
    place_orders(run, 1)


@contextlib.contextmanager
def whole(session: Session, *, wired: bool = True, **options: Any) -> Iterator[System]:
    """The thin pipeline with two replicas; not `wired`, its workers are told the servers' own addresses."""
    lane = session.lane
    if not wired:

        @contextlib.contextmanager
        def around(**wanted: Any) -> Iterator[Any]:
            with lane(**wanted) as one:
                links: Any = one.links
                links.postgres = lambda _label: one.postgres
                links.kafka = lambda _label: one.kafka
                links.translate = lambda _label, text: text
                links.unseen = tuple  # they all are
                yield one

        session.lane = around  # type: ignore[method-assign]
    try:
        with thin_pipeline(session, replicas=2, partitions=4, **options) as system:
            yield system
    finally:
        session.lane = lane  # type: ignore[method-assign]


def per_minute(session: Session, count: int, seconds: float) -> float:
    """Schedules a minute in so many lanes; each has to hold and its fault to fire."""
    rng = random.Random(1)
    with session.lanes(functools.partial(whole, workload=one_order), count) as lanes:
        recording = lanes.record()
        points = [point for point in recording.points if point not in recording.checkpoints]
        done, began = 0, time.monotonic()
        some = (Schedule.parse(f"{rng.choice(points)}:{rng.choice(FAULTS)}") for _ in itertools.count())
        for verdict in lanes.each(itertools.takewhile(lambda _: time.monotonic() - began < seconds, some)):
            verdict.require_holds()
            done += 1
        return 60 * done / (time.monotonic() - began)


def loop(system: System, count: int) -> tuple[float, float]:
    """The fault-free loop, an order at a time: seconds of a drill, judged; of an order, until it is charged.

    Both are medians. An order is placed at a random moment of the relay's interval, which would otherwise be in step
    with the drills for many of them.
    """
    [ledger] = system.ledgers
    charged = []
    pauses = [0.0]

    def workload(run: Run) -> None:
        pauses.append(random.uniform(0, PAUSE_S))
        time.sleep(pauses[-1])
        began = time.perf_counter()
        place_orders(run, 1)
        while not ledger.of(run.keys[-1]):
            time.sleep(0.0005)
        charged.append(time.perf_counter() - began)

    system.workload = workload
    drills = []
    for _ in range(count):
        began = time.perf_counter()
        verdict = system.drill(report=False)
        drills.append(time.perf_counter() - began - pauses[-1])
        if verdict.violations or len(verdict.keys) != 1:
            sys.exit(verdict.story()[:2000])
    return statistics.median(drills), statistics.median(charged)


def overhead(session: Session, pairs: int) -> dict[str, float]:
    """How much longer the fault-free loop takes through the wire."""
    with whole(session) as ours, whole(session, wired=False) as direct:
        turns = [(loop(ours, LOOP), loop(direct, LOOP)) for _ in range(pairs + 1)][1:]

    def median(way: int, what: int) -> float:
        return 1000 * statistics.median(turn[way][what] for turn in turns)

    return {
        "wire_overhead_percent": 100 * (statistics.median(one[0] / other[0] for one, other in turns) - 1),
        "drill_ms_through_the_wire": median(0, 0),
        "drill_ms_directly": median(1, 0),
        "order_overhead_percent": 100 * (statistics.median(one[1] / other[1] for one, other in turns) - 1),
        "order_ms_through_the_wire": median(0, 1),
        "order_ms_directly": median(1, 1),
    }


def sweeps(session: Session, count: int, *, dynamic: bool) -> dict[str, float]:
    """Sweep again and again, and record in between."""
    with whole(session, dynamic=dynamic) as system:
        first = system.sweep()
        print(first.story())
        points = {tuple(sorted(first.recording.points)), *(tuple(sorted(system.record().points)) for _ in range(5))}
        others = [system.sweep() for _ in range(count - 1)]
        for one in others:
            if one.status != "holds":
                print(one.story(events=True))
    verdicts = [verdict for one in (first, *others) for verdict in one.verdicts]
    return {
        "sweep_points": len(first.selected),
        "sweep_broken": len(first.broken),
        "sweep_s": first.seconds,
        "sweep_s_median": statistics.median(one.seconds for one in (first, *others)),
        "sweep_schedules": len(first.verdicts),
        "sweep_unfit": sum(bool(verdict.unfit) for verdict in first.verdicts),
        "denominators_equal": len(points) == 1,
        "sweeps": count,
        "violated": sum(verdict.status == "violated" for verdict in verdicts),
        "unknown": sum(verdict.status == "unknown" and not verdict.unfit for verdict in verdicts),
        "holding_sweeps": sum(one.status == "holds" for one in (first, *others)),
    }


def deep(session: Session) -> dict[str, float]:
    """One sweep at depth 2."""
    with whole(session) as system:
        sweep = system.sweep(depth=2)
    print(sweep.story())
    return {
        "depth2_s": sweep.seconds,
        "depth2_schedules": len(sweep.verdicts),
        "depth2_not_reached": sum(bool(verdict.not_reached) for verdict in sweep.verdicts),
        "depth2_holds": sweep.status == "holds",
    }


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=30, help="of schedules in one lane (default: 30)")
    parser.add_argument("--pairs", type=int, default=7, help="turns of the fault-free loop (default: 7)")
    parser.add_argument("--sweeps", type=int, default=10, help="of the correct pipeline (default: 10)")
    parser.add_argument("--dynamic", type=int, default=1, help="sweeps with dynamic members (default: 1)")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="engine-") as directory, Session(Path(directory)) as session:
        for count in (1, 2, 4):
            figures[f"schedules_per_minute_{count}_lane{'s' * (count > 1)}"] = per_minute(
                session, count, options.seconds
            )
        figures |= overhead(session, options.pairs)
        figures |= sweeps(session, options.sweeps, dynamic=False)
        figures |= deep(session)
        if options.dynamic:
            again = sweeps(session, options.dynamic, dynamic=True)
            figures |= {f"dynamic_{name}": value for name, value in again.items()}
    report(figures, options.json)


if __name__ == "__main__":
    main()
