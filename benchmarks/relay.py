"""Our two relays beside Debezium and pg_recvlogical: the same rows, on the same servers, one after the other.

A backlog is drained: rows a second from the first message on the topic to the last, and rows for each second of the
relay's CPU meanwhile, so that nobody's start counts. `pg_recvlogical` writes to /dev/null and has no topic: what it
reaches is what Postgres can send. Medians of several rounds, in each of which another one begins.

Then orders come at a steady rate: from just before COMMIT to a consumer that has the message, in milliseconds, after
a while for Java to warm up in. Then one transaction of a million rows: the most memory that the CDC relay took.
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
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

import psutil
import psycopg
from confluent_kafka import Consumer, TopicPartition

from benchmarks.debezium import debezium
from benchmarks.report import arguments, report
from chaos import Session
from chaos.waiting import Deadline, wait_until
from pipeline.write.orders import EVENT, ORDER
from tests.fix_pipeline import SCHEMA
from tests.fix_slot import dropped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection

    from chaos import Lane

    Relay = Callable[[Session, Lane], AbstractContextManager[psutil.Process]]

ORDERS, PARTITIONS, PER_TRANSACTION = 3_000, 3, 1_000
PATIENCE_S = 120.0
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
WANTED = {"customer_id": "c-1", "sku": "sku-1", "quantity": 1, "amount": 1999, "currency": "EUR"}
SOME_ORDERS = """
    insert into orders
    select 'order-' || n, 'c-1', 'sku-1', 1, 1999, 'EUR' from generate_series(0, %s - 1) n
"""
SOME_EVENTS = """
    insert into outbox (event_id, order_id, seq, type, payload, traceparent)
    select gen_random_uuid(), 'order-' || n %% %s, n / %s + 1, 'order.placed',
        json_build_object('seq', n / %s + 1, 'customer_id', repeat('x', 200)), %s
    from generate_series(%s::int, %s::int - 1) n
"""


@contextlib.contextmanager
def ours(session: Session, lane: Lane, worker: str) -> Iterator[psutil.Process]:
    """One of the pipeline's relays, as its users start it."""
    env = {
        "DATABASE_URL": lane.postgres,
        "KAFKA_BOOTSTRAP_SERVERS": lane.kafka,
        "NAMESPACE": f"{lane.name}.{worker}",
        "RELAY": RELAYS[worker],
        "SLOT": slot(lane, worker),
        "PATH": os.environ["PATH"],
    }
    process = session.supervisor.spawn(worker, [sys.executable, "-m", "pipeline", "relay"], env=env)
    try:
        yield psutil.Process(process.pid)
        process.require_running()
    finally:
        process.stop(Deadline(PATIENCE_S))


@contextlib.contextmanager
def peer(session: Session, lane: Lane) -> Iterator[psutil.Process]:
    """Debezium on Kafka Connect."""
    with debezium(
        session.supervisor,
        database_url=lane.postgres,
        kafka=lane.kafka,
        slot=slot(lane, "debezium"),
        publication="outbox",
        topic=f"{lane.name}.debezium.orders",
    ) as process:
        yield process


ARMS: dict[str, tuple[Relay, str]] = {
    "cdc": (partial(ours, worker="cdc"), "cdc"),
    "debezium": (peer, "debezium"),
    "polling": (partial(ours, worker="relay"), "relay"),
}
RELAYS = {"cdc": "cdc", "relay": "polling"}
SLOTS = ("cdc", "debezium", "recvlogical")


def slot(lane: Lane, arm: str) -> str:
    """The slot that an arm reads."""
    return f"{lane.name}_{arm}"


@contextlib.contextmanager
def outbox(session: Session, slots: Sequence[str] = SLOTS) -> Iterator[Lane]:
    """A database with an empty outbox, a topic for each arm, and so many slots."""
    topics = {f"{name}.orders": PARTITIONS for _, name in ARMS.values()}
    with session.lane(schema=SCHEMA, topics=topics) as lane:
        for one in slots:
            lane.execute(f"select pg_create_logical_replication_slot('{slot(lane, one)}', 'pgoutput')")
        try:
            yield lane
        finally:
            for one in slots:
                wait_until(f"the slot of {one} to be free", partial(dropped, lane, slot(lane, one)), Deadline(20))


def fill(lane: Lane, rows: int, per_transaction: int = PER_TRANSACTION) -> None:
    """Put so many rows into the outbox, of some orders in turn."""
    with psycopg.connect(lane.postgres, autocommit=True) as connection:
        connection.execute(SOME_ORDERS, [ORDERS])
        for first in range(0, rows, per_transaction):
            last = min(first + per_transaction, rows)
            connection.execute(SOME_EVENTS, [ORDERS, ORDERS, ORDERS, TRACEPARENT, first, last])


class Topic:
    """How much is on the topic of an arm."""

    def __init__(self, lane: Lane, name: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": str(uuid4())})
        self._partitions = [TopicPartition(f"{lane.name}.{name}.orders", number) for number in range(PARTITIONS)]

    def count(self) -> int:
        """So many messages."""
        ends = (self._consumer.get_watermark_offsets(one, timeout=10)[1] for one in self._partitions)
        return sum(ends)


class Drained(NamedTuple):
    """How fast a backlog went: by the clock, and by what the relay used of a CPU."""

    rows_per_s: float
    rows_per_cpu_s: float


def drain(session: Session, lane: Lane, arm: str, rows: int) -> Drained:
    """Have a relay drain the outbox."""
    run, name = ARMS[arm]
    topic = Topic(lane, name)
    with run(session, lane) as process:
        logs = list((session.output / "logs").glob(f"*{name}*"))
        first = wait_until(f"{arm} to begin", topic.count, Deadline(PATIENCE_S), every=0.005, logs=logs)
        began, used = time.monotonic(), cpu_s(process)
        wait_until(
            f"{arm} to end", topic.count, Deadline(PATIENCE_S), accept=lambda n: n >= rows, every=0.005, logs=logs
        )
        took, used = time.monotonic() - began, cpu_s(process) - used
    if (found := topic.count()) != rows:
        sys.exit(f"{arm} has put {found} messages on the topic for {rows} rows")
    return Drained((rows - first) / took, (rows - first) / used)


def cpu_s(process: psutil.Process) -> float:
    """What a process has used of a CPU so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def beside_postgres(session: Session, program: str) -> Path:
    """A program that came with the server that runs."""
    server = session.services.postgres.process
    if server is None:
        sys.exit(f"{program} is taken from beside a Postgres of our own, and this one is somebody else's")
    return Path(psutil.Process(server.pid).exe()).with_name(program)


def received(session: Session, lane: Lane) -> float:
    """Rows a second that `pg_recvlogical` receives and throws away, from its start to its end."""
    [(rows, end)] = lane.look("select (select count(*) from outbox), pg_current_wal_lsn()::text")
    argv = [
        str(beside_postgres(session, "pg_recvlogical")),
        "-d",
        lane.postgres,
        "--slot",
        slot(lane, "recvlogical"),
        "--start",
    ]
    argv += ["-f", "/dev/null", "--endpos", end, "--no-loop", "-o", "proto_version=1", "-o", "publication_names=outbox"]
    began = time.monotonic()
    process = session.supervisor.spawn("recvlogical", argv, env={"PATH": os.environ["PATH"]})
    if process.wait(Deadline(PATIENCE_S)).status != 0:
        process.require_running()
    return float(rows) / (time.monotonic() - began)


def rounds(session: Session, count: int, rows: int) -> dict[str, float]:
    """Drain the same backlog by everybody, so many times; medians."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        with outbox(session) as lane:
            fill(lane, rows)
            order = [*ARMS, "recvlogical"]
            for arm in order[number % len(order) :] + order[: number % len(order)]:
                if arm == "recvlogical":
                    found.setdefault("recvlogical_rows_per_s", []).append(received(session, lane))
                    continue
                drained = drain(session, lane, arm, rows)
                for what, value in drained._asdict().items():
                    found.setdefault(f"{arm}_{what}", []).append(value)
    return {name: statistics.median(values) for name, values in found.items()}


def listen(kafka: str, topic: str, count: int, to: Connection) -> None:
    """In a process of its own: when each of so many events was there, by its event_id."""
    told = {"bootstrap.servers": kafka, "group.id": str(uuid4()), "auto.offset.reset": "earliest"}
    consumer = Consumer(told | {"fetch.wait.max.ms": 100})
    consumer.assign([TopicPartition(topic, number, 0) for number in range(PARTITIONS)])
    there: dict[str, float] = {}
    to.send("listening")
    while len(there) < count:
        message = consumer.poll(1)
        if message is not None and message.error() is None:
            at = time.monotonic()
            there.setdefault(json.loads(message.value() or b"")["event_id"], at)
    to.send(there)
    consumer.close()


def place_steadily(lane: Lane, per_s: float, count: int) -> dict[str, float]:
    """Place so many orders at a steady rate; when each was about to be committed, by its event_id."""
    placed: dict[str, float] = {}
    began = time.monotonic()
    with psycopg.connect(lane.postgres) as connection:
        for number in range(count):
            event = {"event_id": str(uuid4()), "order_id": str(uuid4()), "seq": 1, "type": "order.placed"}
            row = event | {"payload": json.dumps(event), "traceparent": TRACEPARENT}
            time.sleep(max(0.0, began + number / per_s - time.monotonic()))
            connection.execute(ORDER, WANTED | event)
            connection.execute(EVENT, row)
            placed[str(event["event_id"])] = time.monotonic()
            connection.commit()
    return placed


def latencies(session: Session, arm: str, per_s: float, warm_up_s: float, seconds: float) -> dict[str, float]:
    """Milliseconds from COMMIT to consumer."""
    run, name = ARMS[arm]
    count = int(per_s * (warm_up_s + seconds))
    with outbox(session, [arm] if arm in SLOTS else []) as lane, run(session, lane):
        here, there = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        asked = (lane.kafka, f"{lane.name}.{name}.orders", count, there)
        listener = context.Process(target=listen, args=asked, daemon=True)
        listener.start()
        here.recv()
        placed = place_steadily(lane, per_s, count)
        if not here.poll(PATIENCE_S):
            sys.exit(f"{arm}: not all of {count} events have come")
        arrived = here.recv()
        listener.join(PATIENCE_S)
    measured = itertools.islice(placed.items(), int(per_s * warm_up_s), None)
    took = statistics.quantiles([1000 * (arrived[event] - at) for event, at in measured], n=100)
    return {f"{arm}_p{percent}_ms": took[percent - 1] for percent in (50, 95, 99)}


def peak_mb(session: Session, rows: int) -> float:
    """The most memory that the CDC relay takes for one transaction of so many rows."""
    with outbox(session, ["cdc"]) as lane:
        fill(lane, rows, per_transaction=rows)
        topic = Topic(lane, "cdc")
        with ours(session, lane, "cdc") as process:
            wait_until("everything to be on the topic", lambda: topic.count() >= rows, Deadline(PATIENCE_S))
            status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    [line] = [one for one in status.splitlines() if one.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often the backlog is drained (default: 3)")
    parser.add_argument("--rows", type=int, default=300_000, help="how long the backlog is (default: 300,000)")
    parser.add_argument("--per-second", type=float, default=500, help="orders, for the latencies (default: 500)")
    parser.add_argument("--seconds", type=float, default=20, help="of them (default: 20, after 10 to warm up)")
    parser.add_argument(
        "--large", type=int, default=1_000_000, help="rows of the large transaction (default: 1,000,000)"
    )
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="relay-") as directory, Session(Path(directory)) as session:
        if options.rounds:
            figures |= rounds(session, options.rounds, options.rows)
        if options.seconds:
            for arm in ARMS:
                figures |= latencies(session, arm, options.per_second, 10, options.seconds)
        if options.large:
            figures["cdc_peak_mb"] = peak_mb(session, options.large)
    for peer_, what in (("debezium", "rows_per_s"), ("debezium", "rows_per_cpu_s"), ("recvlogical", "rows_per_s")):
        if f"cdc_{what}" in figures:
            figures[f"cdc_to_{peer_}_{what}"] = figures[f"cdc_{what}"] / figures[f"{peer_}_{what}"]
    report(figures, options.json)


if __name__ == "__main__":
    main()
