"""The two relays on one schema: what each costs Postgres, how soon events arrive, what a fault does to each.

The same orders at the same steady rate, each arm in a fresh database of one server. Whatever is counted is counted
without a relay as well, and that is taken off: what is left is what the relay costs.

none       no relay: the figures as they are
polling    the polling relay; there is no slot
cdc        the CDC relay; there is no polling relay
beside     the polling relay beside a logical slot that nobody reads

<arm>_p50_ms, _p95_ms, _p99_ms    from just before COMMIT to a consumer that has the message
<arm>_commits_per_s               transactions that were committed in the database, most of a relay's a statement each
<arm>_server_cpu_percent          of one CPU, by all of the server's processes; one VACUUM of the outbox is in it
<arm>_relay_cpu_percent           of one CPU, by the relay
<arm>_wal_bytes_per_order         written to the log
<arm>_outbox_bytes_per_order      what the outbox has grown by, its indexes included
<arm>_dead_rows_per_order         old versions in the outbox, before that VACUUM
<arm>_idle_<what>                 likewise, while nobody orders anything; the log in bytes a second
<arm>_left_in_outbox              dead rows that VACUUM had to leave in the outbox
<arm>_left_in_catalog             likewise in pg_attribute, after some temporary tables came and went
<arm>_held_log_mb                 log that the slot keeps from being removed at the end

Then a fault in the middle of orders, through the wire of the harness: the relay is killed when Kafka has its events
(crash), the reply of Kafka is lost (reply), the relay stands still for a second (freeze), its session is ended by
Postgres (session).

<relay>_<fault>_recovered_ms      from the fault to a consumer that has the first event committed after it
<relay>_<fault>_slowest_ms        from BEGIN to a consumer, of the event that took longest
<relay>_<fault>_copies            messages beyond the first of their event, in all rounds
<relay>_<fault>_lost              events that never came, in all rounds; 0

Medians of several rounds, but for what is said to be of all. Written to ``docs/polling-or-cdc.md``, between two marks.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.gauges import Gauges
from benchmarks.relay import listen, ours, outbox, place_steadily, slot
from benchmarks.report import arguments, report
from benchmarks.soak import orders_steadily
from chaos import Session
from chaos.history import Asked
from chaos.waiting import Deadline, wait_until
from tests.fix_relays import relayed

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from benchmarks.gauges import Used
    from chaos import Lane, System, Verdict

    Figures = dict[str, float]

DOCUMENT = Path(__file__).parent.parent / "docs" / "polling-or-cdc.md"
BEGIN, END = "<!-- figures: python -m benchmarks.polling_or_cdc -->", "<!-- end of figures -->"

NONE, POLLING, CDC, BESIDE = ARMS = ("none", "polling", "cdc", "beside")
WORKERS = {POLLING: "relay", CDC: "cdc", BESIDE: "relay"}
SLOTS = {CDC: ["cdc"], BESIDE: ["idle"]}
FROM_LOG = {POLLING: False, CDC: True}
AT = "relay~0/kafka.produce#{}"
SESSION = "session"
FAULTS = {"crash": "crash-after", "reply": "lose-reply", "freeze": "freeze=delivered,1", SESSION: ""}

WARM_UP_S = 2.0
PATIENCE_S = 30.0
FAULTY_PER_S, FAULTY_S = 100.0, 3.0  # what the harness's own workload and ledger keep up with easily

SHOWN = {NONE: "no relay", POLLING: "polling", CDC: "CDC", BESIDE: "polling beside an idle slot"}
COSTS = {
    "p50_ms": "COMMIT to consumer: half within, ms",
    "p95_ms": "COMMIT to consumer: 95 % within, ms",
    "p99_ms": "COMMIT to consumer: 99 % within, ms",
    "commits_per_s": "transactions/s",
    "server_cpu_percent": "CPU of Postgres, % of one",
    "relay_cpu_percent": "CPU of the relay, % of one",
    "wal_bytes_per_order": "log, bytes/order",
    "outbox_bytes_per_order": "outbox with its indexes, bytes/order",
    "dead_rows_per_order": "dead rows in the outbox per order",
    "idle_commits_per_s": "idle: transactions/s",
    "idle_server_cpu_percent": "idle: CPU of Postgres, % of one",
    "idle_relay_cpu_percent": "idle: CPU of the relay, % of one",
    "idle_wal_bytes_per_s": "idle: log, bytes/s",
    "left_in_outbox": "dead rows that VACUUM leaves in the outbox",
    "left_in_catalog": "dead rows that VACUUM leaves in pg_attribute",
    "held_log_mb": "log that the slot holds, MB",
}
TOLD = {
    "crash": "relay killed, Kafka has its events",
    "reply": "Kafka's reply lost",
    "freeze": "relay stands still for 1 s",
    SESSION: "its session ended by Postgres",
}
SUFFERED = {"recovered_ms": "recovered", "slowest_ms": "slowest", "copies": "copies", "lost": "lost"}

WRITTEN = "select event_id::text, extract(epoch from created_at)::float8 from outbox where order_id = any(%s)"
CUT = """
    select pg_terminate_backend(pid) from pg_stat_activity
    where datname = current_database() and application_name <> 'onecharge'
    and backend_type in ('client backend', 'walsender')
"""


class Listener:
    """A consumer in a process of its own, who waits for so many events."""

    def __init__(self, lane: Lane, worker: str, count: int) -> None:
        self._here: Connection
        self._here, there = multiprocessing.Pipe()
        asked = (lane.kafka, f"{lane.name}.{worker}.orders", count, there)
        self._process = multiprocessing.get_context("spawn").Process(target=listen, args=asked, daemon=True)
        self._process.start()
        self._here.recv()

    def arrived(self) -> dict[str, float]:
        """When each event was there."""
        if not self._here.poll(PATIENCE_S):
            sys.exit("not all events have come")
        found: dict[str, float] = self._here.recv()
        self._process.join(PATIENCE_S)
        return found


def measure(session: Session, arm: str, per_s: float, seconds: float) -> Figures:
    """One arm: orders to warm up with, so many seconds without any, so many with them."""
    worker = WORKERS.get(arm)
    warm, count = int(per_s * WARM_UP_S), int(per_s * seconds)
    with contextlib.ExitStack() as stack:
        lane = stack.enter_context(outbox(session, SLOTS.get(arm, [])))
        relay = stack.enter_context(ours(session, lane, worker)) if worker else None
        gauges = Gauges(session, lane, relay, marks=worker == "relay", slot=slot(lane, "cdc"))
        stack.callback(gauges.close)
        listener = Listener(lane, worker, warm + count) if worker else None
        place_steadily(lane, per_s, warm)
        gauges.settle(warm)
        before = gauges.read()
        time.sleep(seconds)  # this is what is measured
        idle = gauges.read().since(before)
        before, dead = gauges.read(), gauges.dead("outbox")
        placed = place_steadily(lane, per_s, count)
        arrived = listener.arrived() if listener else {}
        gauges.settle(warm + count)
        dead = gauges.dead("outbox") - dead
        gauges.ask("vacuum outbox")
        figures = {
            **rates(gauges.read().since(before), seconds, count),
            **{f"idle_{what}": value for what, value in rates(idle, idle.at).items()},
            "dead_rows_per_order": dead / count,
            "left_in_outbox": gauges.dead("outbox"),
            "left_in_catalog": gauges.left_in_catalog(),
            "held_log_mb": gauges.held_bytes() / 1e6,
        }
    if arrived:
        took = statistics.quantiles([1000 * (arrived[event] - at) for event, at in placed.items()], n=100)
        figures |= {f"p{percent}_ms": took[percent - 1] for percent in (50, 95, 99)}
    return figures


def rates(used: Used, seconds: float, count: int = 0) -> Figures:
    """What was used, for each second; of what grows with orders, for each of so many of them."""
    found = {
        "commits_per_s": used.commits / seconds,
        "server_cpu_percent": 100 * used.server_cpu_s / seconds,
        "relay_cpu_percent": 100 * used.relay_cpu_s / seconds,
    }
    if not count:
        return found | {"wal_bytes_per_s": used.wal_bytes / seconds}
    return found | {
        "wal_bytes_per_order": used.wal_bytes / count,
        "outbox_bytes_per_order": used.outbox_bytes / count,
    }


class Watch:
    """A consumer of a lane's topic in a thread: what has arrived, and when by Unix time."""

    def __init__(self, lane: Lane) -> None:
        told = {"bootstrap.servers": lane.kafka, "group.id": str(uuid4()), "fetch.wait.max.ms": 100}
        self._consumer = Consumer(told)
        self._consumer.assign([TopicPartition(lane.topics["orders"], 0, 0)])
        self.arrivals: list[tuple[float, str]] = []
        self._closing = False
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while not self._closing:
            message = self._consumer.poll(0.1)
            if message is not None and message.error() is None:
                at = time.time()
                self.arrivals.append((at, json.loads(message.value() or b"")["event_id"]))

    def close(self) -> None:
        """Leave."""
        self._closing = True
        self._thread.join()
        self._consumer.close()


@contextlib.contextmanager
def cut_midway(lane: Lane) -> Iterator[list[float]]:
    """End the relay's session in the middle of the orders; when that was."""
    cuts: list[float] = []

    def cut() -> None:
        with psycopg.connect(lane.postgres, application_name="onecharge") as connection:
            if connection.execute(CUT).rowcount:
                cuts.append(time.time())

    timer = threading.Timer(FAULTY_S / 2, cut)
    timer.start()
    try:
        yield cuts
    finally:
        timer.join()


def break_once(system: System, fault: str) -> tuple[float, Verdict]:
    """A drill with one fault in the middle; when that was done."""
    if fault == SESSION:
        with cut_midway(system.lane) as moments:
            verdict = system.drill("")
    else:
        point = AT.format(int(FAULTY_PER_S * FAULTY_S / 4))
        verdict = system.drill(f"{point}:{FAULTS[fault]}")
        moments = [one.at for one in verdict.history if isinstance(one, Asked) and point in one.points]
    if verdict.status != "holds" or not moments:
        print(verdict.story(), file=sys.stderr, flush=True)
    if not moments:
        sys.exit(f"{fault}: it was not done")
    return moments[0], verdict


def suffer(system: System, watch: Watch, fault: str) -> Figures:
    """What a fault did: to the event after it, to the slowest one, copies, losses."""
    seen = len(watch.arrivals)
    broken, verdict = break_once(system, fault)
    written = dict(system.lane.execute(WRITTEN, [list(verdict.keys)]))

    def missing() -> set[str]:
        return set(written) - {event for _, event in watch.arrivals[seen:]}

    with contextlib.suppress(TimeoutError):
        wait_until("all events", missing, Deadline(5), accept=lambda found: not found)
    first: dict[str, float] = {}
    for at, event in watch.arrivals[seen:]:
        first.setdefault(event, at)
    return {
        "recovered_ms": 1000 * (min(at for event, at in first.items() if written[event] > broken) - broken),
        "slowest_ms": 1000 * max(at - written[event] for event, at in first.items()),
        "copies": len(watch.arrivals) - seen - len(first),
        "lost": len(missing()),
    }


def rounds(count: int, measured: Callable[[int], dict[str, Figures]], summed: tuple[str, ...] = ()) -> Figures:
    """Medians of so many rounds, and sums of what is `summed`."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        for name, figures in measured(number).items():
            for what, value in figures.items():
                found.setdefault(f"{name}_{what}", []).append(value)
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
    return {name: sum(some) if name.endswith(summed) else statistics.median(some) for name, some in found.items()}


def costs(session: Session, count: int, per_s: float, seconds: float) -> Figures:
    """What each arm costs; another one begins in each round."""

    def measured(number: int) -> dict[str, Figures]:
        order = [*ARMS[number % len(ARMS) :], *ARMS[: number % len(ARMS)]]
        return {arm: measure(session, arm, per_s, seconds) for arm in order}

    found = rounds(count, measured)
    without = {name.removeprefix(f"{NONE}_"): value for name, value in found.items() if name.startswith(NONE)}
    for arm, (what, value) in itertools.product(ARMS[1:], without.items()):
        found[f"{arm}_{what}"] -= value
    return found


def faults(session: Session, count: int) -> Figures:
    """What each fault does to each relay."""
    found: Figures = {}
    workload = partial(orders_steadily, per_s=FAULTY_PER_S, seconds=FAULTY_S)
    for name, from_log in FROM_LOG.items():
        with (
            relayed(session, from_log=from_log, workload=workload) as system,
            contextlib.closing(Watch(system.lane)) as watch,
        ):
            system.drill("").require_holds()  # the first events wait for the relay to start, for no fault
            found |= rounds(count, partial(each_fault, name, system, watch), summed=("copies", "lost"))
    return found


def each_fault(name: str, system: System, watch: Watch, _number: int) -> dict[str, Figures]:
    """One round."""
    return {f"{name}_{fault}": suffer(system, watch, fault) for fault in FAULTS}


def table(head: str, columns: Sequence[str], rows: Iterable[tuple[str, Iterable[str]]]) -> str:
    """A table of Markdown."""
    lines = [f"| {head} | {' | '.join(columns)} |", "|---|" + "---:|" * len(columns)]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in rows)])


def page(figures: Figures, options: argparse.Namespace) -> str:
    """The figures as a part of the document."""
    costs_of = [(text, [shown(figures.get(f"{arm}_{what}")) for arm in ARMS]) for what, text in COSTS.items()]
    columns = [f"{SHOWN[relay]}: {what}" for relay in FROM_LOG for what in SUFFERED.values()]
    suffered = [
        (text, [shown(figures[f"{relay}_{fault}_{what}"]) for relay in FROM_LOG for what in SUFFERED])
        for fault, text in TOLD.items()
    ]
    made = (
        f"{options.per_second:g} orders a second for {options.seconds:g} s, and as long without any; medians of "
        f"{options.rounds} rounds on {os.cpu_count()} CPUs. Of each\nrelay it says what comes on top of the figures "
        "without one, but for the times."
    )
    faulty = (
        f"{FAULTY_PER_S:g} events a second for {FAULTY_S:g} s, the fault in their midst, {options.rounds} times. Times "
        "are medians, in ms; copies and losses\nare sums."
    )
    parts = [made, table("", list(SHOWN.values()), costs_of), faulty, table("fault", columns, suffered)]
    return "\n\n".join(parts)


def shown(value: float | None) -> str:
    """Three digits, or a whole number."""
    if value is None:
        return ""
    whole = value == round(value)
    return f"{value:,.{0 if whole else max(0, 3 - len(str(int(abs(value)))))}f}"


def write(part: str) -> None:
    """Put the figures between the document's marks."""
    before, _, rest = DOCUMENT.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n\n{part}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    """Measure, write the figures into the document, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each arm and fault (default: 3)")
    parser.add_argument("--per-second", type=float, default=300, help="orders (default: 300)")
    parser.add_argument("--seconds", type=float, default=7, help="of them, and of none (default: 7)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="polling-or-cdc-") as directory, Session(Path(directory)) as session:
        figures = costs(session, options.rounds, options.per_second, options.seconds)
        figures |= faults(session, options.rounds)
    write(page(figures, options))
    report(figures, options.json)


if __name__ == "__main__":
    main()
