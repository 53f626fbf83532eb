"""Crash schedules a minute: an order over HTTP, relay, Kafka, payment killed at a random checkpoint, settled, judged.

Three ways to do the same, one after the other in one run:

ours                 payment forked from a warm parent, a static member of its group; servers kept
cold interpreters    payment started by its command line, a dynamic member of its group; servers kept. Its session
                     time-out is 1 s, the least that its heartbeats allow: with librdkafka's default it would be 45 s
fresh servers        as ours, with servers of its own for every schedule

Also how long the servers take to be up from a warm cache, and what an unarmed checkpoint costs. Every schedule has to
hold and its fault to fire; otherwise this ends with the drill's story instead of a figure.
"""

from __future__ import annotations

import contextlib
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from chaos.checkpoint import checkpoint
from chaos.services.local import Local
from chaos.workers.supervisor import Supervisor
from tests.fix_pipeline import place_orders, thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, System

SITES = ("received", "charging", "charged", "recorded", "committed", "offset_committed")
CALLS, REPEATS = 20_000, 300  # short enough for one to fall between interruptions


def one_order(run: Run) -> None:
    """The workload of one schedule."""
    place_orders(run, 1)


def schedule(rng: random.Random) -> str:
    """A crash of the payment worker at a random one of its checkpoints."""
    return f"payment/payment.{rng.choice(SITES)}:crash-before"


def per_minute(system: System, seconds: float, rng: random.Random) -> float:
    """Run schedules for so many seconds; how many a minute that were."""
    system.drill().require_holds()  # the first order pays for connections and the group's birth
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        system.drill(schedule(rng)).require_holds()
        done += 1
    return 60 * done / (time.monotonic() - began)


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """A session whose logs and ledgers are thrown away."""
    with tempfile.TemporaryDirectory(prefix="crash-loop-") as directory, Session(Path(directory)) as one:
        yield one


def fresh_servers(seconds: float, rng: random.Random) -> float:
    """Schedules a minute with servers of their own."""
    done, began = 0, time.monotonic()
    while time.monotonic() - began < seconds:
        with session() as one, thin_pipeline(one, workload=one_order) as system:
            system.drill(schedule(rng)).require_holds()
        done += 1
    return 60 * done / (time.monotonic() - began)


def services_up() -> float:
    """Seconds until Postgres, Kafka and Toxiproxy answer, from a warm cache."""
    with tempfile.TemporaryDirectory(prefix="crash-loop-") as logs:
        began = time.monotonic()
        with Supervisor(Path(logs)) as supervisor:
            local = Local(supervisor)
            local.start("postgres", "kafka", "toxiproxy")
            took = time.monotonic() - began
            local.close()
    return took


def best_ns(function: Callable[[], None]) -> float:
    """Nanoseconds of the fastest of several calls."""

    def once() -> int:
        began = time.perf_counter_ns()
        function()
        return time.perf_counter_ns() - began

    return min(once() for _ in range(REPEATS))


def checkpoint_ns() -> float:
    """Nanoseconds of an unarmed checkpoint, the loop around it taken off."""

    def calls() -> None:
        for _ in range(CALLS):
            checkpoint("payment.charged")

    def empty() -> None:
        for _ in range(CALLS):
            pass

    return (best_ns(calls) - best_ns(empty)) / CALLS


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each of the three ways (default: 20)")
    options = parser.parse_args()
    rng = random.Random(1)
    services_up()  # fills the cache where it is empty
    figures = {"services_up_s": statistics.median(services_up() for _ in range(5)), "checkpoint_ns": checkpoint_ns()}
    cold = {"GROUP_INSTANCE_ID": "", "SESSION_TIMEOUT_MS": "1000", "PYTHONPATH": "src"}
    with session() as one:
        with thin_pipeline(one, workload=one_order) as system:
            figures["schedules_per_minute"] = per_minute(system, options.seconds, rng)
        with thin_pipeline(one, "python -m pipeline payment", workload=one_order, env=cold) as system:
            figures["cold_interpreter_per_minute"] = per_minute(system, options.seconds, rng)
    figures["fresh_servers_per_minute"] = fresh_servers(options.seconds, rng)
    ours = figures["schedules_per_minute"]
    figures["times_cold_interpreter"] = ours / figures["cold_interpreter_per_minute"]
    figures["times_fresh_servers"] = ours / figures["fresh_servers_per_minute"]
    report(figures, options.json)


if __name__ == "__main__":
    main()
