"""Consumer groups: events a second, beside what Postgres does of the same SQL, and how soon a killed member is back.

inventory_events_per_s       a backlog on the topic, handled by one member: from its first commit of offsets to the last
inventory_events_per_cpu_s   the same for each second of the member's CPU
pgbench_events_per_s         the same statements, in transactions as large, on the same servers: one client of pgbench,
                             which decides nothing and has no Kafka; the statement that fetches its arguments included
inventory_to_pgbench         the ratio, within each round
payment_events_per_s         likewise, by a member of the payment group, with a gateway that syncs each charge to disk
naive_payment_events_per_s   the same backlog by a loop of one event at a time, which gives the same guarantees: charge,
                             COMMIT, offset
payment_to_naive             the ratio, within each round
restart_ms                   from SIGKILL to the first COMMIT of the member that takes its place: a static one, forked
                             from a warm parent, events waiting; median

Medians of several rounds; who begins changes from round to round. Every second order is charged already, or has its
goods, so half of the events bring an outcome with them. A backlog that is not handled in full ends this with what was
seen.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import psutil
from confluent_kafka import Consumer, Producer, TopicPartition

from benchmarks.relay import beside_postgres, cpu_s
from benchmarks.report import arguments, report
from chaos import Session
from chaos.history import Broke, Replied
from chaos.waiting import Deadline, wait_until
from pipeline.gateway import server as gateway
from pipeline.process import inbox, inventory, orders, payment
from pipeline.process.member import AT_ONCE
from pipeline.quarantine import parking
from tests.fix_groups import groups
from tests.fix_pipeline import SCHEMA
from tests.thin import payment as naive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos import Lane

# A process that is started there finds what this one does.
HERE = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
PATIENCE_S = 120.0
SKUS = 100
SOME_STOCK = "insert into stock select 'sku-' || n, 1000000000 from generate_series(0, %s - 1) n"
SOME_ORDERS = """
    insert into orders (order_id, customer_id, sku, quantity, amount, currency, payment, stock)
    select %s || n, 'c-1', 'sku-1', 1, 1999, 'EUR', case n %% 2 when 0 then %s end, case n %% 2 when 0 then %s end
    from generate_series(0, %s - 1) n
"""
CHARGED, RESERVED = ("charged", None), (None, "reserved")
BATCHES = """
    create table batches as
    select n / {size} as batch, array_agg(md5('event-' || n)::uuid order by md5('event-' || n)) as events,
        array_agg('bench-' || n order by n) as orders, array_agg('sku-' || n % {skus} order by n) as skus,
        array_agg(1::bigint order by n) as ones, array_agg('reserved'::text order by n) as states,
        (select array_agg('sku-' || s) from generate_series(0, {skus} - 1) s) as all_skus,
        (select array_agg({size} / {skus}) from generate_series(0, {skus} - 1) s) as taken
    from generate_series(0, {rows} - 1) n group by 1
"""
"""What pgbench is given: each row the arguments of one transaction."""
STATEMENTS = [
    (parking.WAITING, "group", "orders"),
    (inbox.FIRST_TIMES, "group", "events"),
    (inventory.LEFT, "all_skus"),
    (inventory.TAKE, "all_skus", "taken"),
    (inventory.DECIDE, "orders", "skus", "ones", "states"),
    (orders.LOCK, "orders"),
    (orders.STOCK, "orders", "states"),
    (orders.OUTCOME, "orders"),
]
"""What a batch of the inventory group is for Postgres."""


RATIO = ("inventory_events_per_s", "pgbench_events_per_s")


class Handled(NamedTuple):
    """How fast a backlog went: by the clock, and by what the member used of a CPU."""

    events_per_s: float
    events_per_cpu_s: float


def script() -> str:
    """A transaction of the inventory group for pgbench; `batch` is the number of the first, before it."""
    lines = [r"\set batch :batch + 1", r"select * from batches where batch = :batch \gset", "begin;"]
    for statement, *names in STATEMENTS:
        text = " ".join(statement.split())
        for name in names:
            text = re.sub("%[sb]", f":{name}", text, count=1)
        lines.append(text + ";")
    return "\n".join([*lines, "commit;\n"])


def by_pgbench(session: Session, lane: Lane, events: int) -> float:
    """Events a second that Postgres can handle, one client asking."""
    lane.execute(SOME_ORDERS, ["bench-", *CHARGED, events])
    lane.execute(BATCHES.format(size=AT_ONCE, skus=SKUS, rows=events))
    lane.execute("alter table batches add primary key (batch)")
    file = session.output / "batch.sql"
    file.write_text(script(), encoding="utf-8")
    argv = [str(beside_postgres(session, "pgbench")), "-n", "-M", "prepared", "-t", str(events // AT_ONCE), "-r"]
    argv += ["-D", "batch=-1", "-D", "group=bench", "-f", str(file), lane.postgres]
    process = session.supervisor.spawn("pgbench", argv, env={"PATH": os.environ["PATH"]})
    ended = process.wait(Deadline(PATIENCE_S))
    text = process.log.read_text(encoding="utf-8")
    found = re.findall(r"^tps = ([0-9.]+)", text, re.MULTILINE)  # the log is that of all rounds
    if ended.status != 0 or not found:
        sys.exit(f"pgbench has failed:\n{text}")
    return float(found[-1]) * AT_ONCE


def fill(lane: Lane, events: int, known: tuple[str | None, str | None]) -> None:
    """Put so many order.placed on the topic, and their orders into the database; what is known of half of them."""
    lane.execute(SOME_ORDERS, ["order-", *known, events])
    producer = Producer({"bootstrap.servers": lane.kafka, "linger.ms": 5, "queue.buffering.max.messages": 0})
    for number in range(events):
        event = {"event_id": str(UUID(int=number)), "type": "order.placed", "order_id": f"order-{number}", "seq": 1}
        goods = {"customer_id": "c-1", "sku": f"sku-{number % SKUS}", "quantity": 1, "amount": 1999, "currency": "EUR"}
        producer.produce(f"{lane.name}.orders", json.dumps(event | goods), f"order-{number}")
        producer.poll(0)
    producer.flush()


def by_a_member(lane: Lane, events: int, main: Callable[[], object], group: str, env: dict[str, str]) -> Handled:
    """Have one member of a group handle so many events that are on the topic."""
    consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": f"{lane.name}.{group}"})
    place = TopicPartition(f"{lane.name}.orders", 0)

    def done() -> int:
        return max(0, int(consumer.committed([place], timeout=10)[0].offset))

    env |= {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": lane.name}
    argv = [sys.executable, "-c", f"from {main.__module__} import {main.__name__} as main; main()"]
    worker = lane.supervisor.spawn(group, argv, env={**env, **HERE})
    wait = partial(wait_until, deadline=Deadline(PATIENCE_S), every=0.1, logs=[worker.log])
    first = wait("the member to begin", done)
    process = psutil.Process(worker.pid)
    began, used = time.monotonic(), cpu_s(process)
    wait("the member to end", done, accept=lambda n: n >= events)
    took, used = time.monotonic() - began, cpu_s(process) - used
    worker.stop(Deadline(PATIENCE_S))
    consumer.close()
    return Handled((events - first) / took, (events - first) / used)


def reserved(lane: Lane, events: int) -> Handled:
    """A member of the inventory group."""
    fill(lane, events, CHARGED)
    handled = by_a_member(lane, events, inventory.main, "inventory", {})
    [(found,)] = lane.look("select count(*) from reservations where state = 'reserved' and order_id like 'order-%'")
    if found != events:
        sys.exit(f"{found} of {events} orders have a reservation")
    return handled


def charged(session: Session, events: int, main: Callable[[], object]) -> float:
    """Events a second of a member of the payment group."""
    with session.lane(schema=SCHEMA, topics={"orders": 1, "retry.payment": 1}) as lane:
        psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
        fill(lane, events, RESERVED)
        handled = by_a_member(lane, events, main, "payment", {"GATEWAY_URL": psp.url})
        found = sum(any(one.effect for one in psp.ledger.of(f"order-{number}")) for number in range(events))
        if found != events:
            sys.exit(f"{found} of {events} orders were charged")
        return handled.events_per_s


def payments(session: Session, count: int, events: int) -> dict[str, float]:
    """The same backlog by the group's member and by a loop of one event at a time, so many times; medians."""
    arms = {"payment_events_per_s": payment.main, "naive_payment_events_per_s": naive.main}
    found: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(count):
        for name in list(arms) if number % 2 == 0 else reversed(arms):
            found[name].append(charged(session, events, arms[name]))
    return medians(found) | {"payment_to_naive": ratio(*found.values())}


def rounds(session: Session, count: int, events: int) -> dict[str, float]:
    """The same backlog by both, so many times; medians."""
    found: dict[str, list[float]] = {}
    for number in range(count):
        for arm in ("member", "pgbench") if number % 2 == 0 else ("pgbench", "member"):
            with session.lane(schema=SCHEMA, topics={"orders": 1, "retry.inventory": 1}) as lane:
                lane.execute(SOME_STOCK, [SKUS])
                if arm == "pgbench":
                    found.setdefault("pgbench_events_per_s", []).append(by_pgbench(session, lane, events))
                    continue
                for what, value in reserved(lane, events)._asdict().items():
                    found.setdefault(f"inventory_{what}", []).append(value)
    return medians(found) | {"inventory_to_pgbench": ratio(*(found[name] for name in RATIO))}


def medians(found: dict[str, list[float]]) -> dict[str, float]:
    """One figure for each arm."""
    return {name: statistics.median(values) for name, values in found.items()}


def ratio(ones: Sequence[float], others: Sequence[float]) -> float:
    """How they compare within a round: these machines are as fast as their neighbours let them, by the minute."""
    return statistics.median(one / other for one, other in zip(ones, others, strict=True))


def restarts_ms(session: Session, count: int) -> list[float]:
    """From SIGKILL before the first COMMIT of a member to the one of its successor, so many times."""
    took = []
    with groups(session) as system:
        for _ in range(count):
            verdict = system.drill("inventory/postgres.commit[key-1]#1:crash-before")
            verdict.require_holds()
            [killed] = [event.at for event in verdict.history if isinstance(event, Broke)]
            replies = [event for event in verdict.history if isinstance(event, Replied)]
            back = next(one.at for one in replies if one.point.startswith("inventory~1/postgres.commit"))
            took.append(1000 * (back - killed))
    return took


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="how often a backlog is handled (default: 7)")
    parser.add_argument("--events", type=int, default=50_000, help="how long it is (default: 50,000)")
    parser.add_argument("--charges", type=int, default=3_000, help="how long that of payment is (default: 3,000)")
    parser.add_argument("--restarts", type=int, default=20, help="how often a member is killed (default: 20)")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="consumers-") as directory, Session(Path(directory)) as session:
        if options.rounds:
            figures |= rounds(session, options.rounds, options.events)
            figures |= payments(session, options.rounds, options.charges)
        if options.restarts:
            figures["restart_ms"] = statistics.median(restarts_ms(session, options.restarts))
    report(figures, options.json)


if __name__ == "__main__":
    main()
