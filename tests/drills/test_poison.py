"""Two bad events among a thousand: they end where people look, and nobody waits for them but what is behind them.

One event cannot be read, another cannot be handled however often it is tried; orders come at a steady rate meanwhile.
How old the oldest order is that still waits, the bad one's left out, is sampled all the time, and drawn in `PICTURE`.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from chaos import Condition, System, Worker, group_drained, no_rows
from chaos.invariants import Invariant, Violation
from chaos.waiting import Deadline, wait_until
from pipeline.publish import relay as relays
from pipeline.settings import Kafka
from tests.fix_groups import ORDER, PLACED, one_row, placed
from tests.fix_pipeline import SCHEMA
from tests.lines import Series, page
from tests.pipeline.slots import messages
from tests.twins import cursed, row_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from chaos import Lane, Run, Session
    from chaos.invariants import Ledger

pytestmark = pytest.mark.drills

ORDERS, PER_S, LONGEST_S = 1_000, 200, 2.0
BUDGET, PATIENCE_S = 7, 20.0
POISON = b'{"event_id": "\xff'
PICTURE = "reports/poison/lag.html"
GOODS = "insert into stock values ('goods', 1000000)"
FAILED = """
    insert into outbox (event_id, order_id, seq, type, payload)
    select event_id, 'cursed', 2, 'order.failed', json_build_object(
        'event_id', event_id, 'type', 'order.failed', 'order_id', 'cursed', 'seq', 2, 'customer_id', 'c-1')
    from gen_random_uuid() as event_id
"""
LAG = """
    select coalesce(max(extract(epoch from clock_timestamp() - created_at))::float8, 0) from outbox as o
    where type = 'order.placed' and order_id <> 'cursed'
        and not exists (select from reservations as r where r.order_id = o.order_id)
"""


class Lag(NamedTuple):
    """How old the oldest order was that waited, over time; and when the bad events came. All in seconds."""

    values: list[tuple[float, float]]
    marks: dict[str, float]

    @property
    def longest(self) -> float:
        """The worst moment."""
        return max((value for _, value in self.values), default=0.0)


class Customers:
    """Place orders at a steady rate, and look meanwhile how long they wait."""

    def __init__(self) -> None:
        self.lag = Lag([], {})

    def __call__(self, run: Run) -> None:
        """The workload: it ends when all good orders have what they asked for, or have waited for too long."""
        run.execute(GOODS)
        began, over = time.monotonic(), threading.Event()
        watch = threading.Thread(target=self.watch, args=(run.lane, began, over))
        watch.start()
        try:
            with psycopg.connect(run.lane.postgres, autocommit=True) as connection:
                for number in range(ORDERS):
                    time.sleep(max(0.0, began + number / PER_S - time.monotonic()))
                    order_id = f"order-{number:04}"
                    place(connection, order_id, "goods")
                    if number in {0, ORDERS - 1}:
                        run.accept(order_id)
                    if number == ORDERS // 4:
                        self.lag.marks["unreadable"] = time.monotonic() - began
                        run.produce("orders", POISON)
                    if number == ORDERS // 2:
                        self.lag.marks["cannot be handled"] = time.monotonic() - began
                        place(connection, "cursed", cursed.SKU)
                        connection.execute(FAILED)
            deadline = Deadline(PATIENCE_S)
            wait_until("orders to be done, or late", self.done_or_late, deadline, every=0.05)
        finally:
            over.set()
            watch.join()

    def watch(self, lane: Lane, began: float, over: threading.Event) -> None:
        """Sample until it is over."""
        with psycopg.connect(lane.postgres, autocommit=True) as connection:
            while not over.wait(0.05):
                [(value,)] = connection.execute(LAG).fetchall()
                self.lag.values.append((time.monotonic() - began, value))

    def done_or_late(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.lag.values[-1][1] == 0 or self.lag.longest > 2 * LONGEST_S


def place(connection: psycopg.Connection, order_id: str, sku: str) -> None:
    """Accept an order, as the API does."""
    with connection.transaction():
        connection.execute(ORDER, [order_id, None])
        connection.execute(PLACED, placed(order_id, sku, 1))


def in_time(customers: Customers, ledger: Ledger) -> Invariant:
    """No good order has waited for longer than it may."""

    def check(_keys: Sequence[str]) -> list[Violation]:
        longest = customers.lag.longest
        return [Violation("in time", "orders", f"waited for {longest:.2f} s")] if longest > LONGEST_S else []

    return Invariant("in time", check, ledger, final=True)


@contextlib.contextmanager
def shop(session: Session, main: Callable[[], object], customers: Customers, within: float = 40) -> Iterator[System]:
    """Relay, inventory group and its retry worker."""
    with session.lane(schema=SCHEMA, topics={"orders": 3, "retry.inventory": 1, "dead.inventory": 1}) as lane:
        row_ledger.setup(lane, ["reservations"])
        rows = lane.trusted(
            "rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env={"SLOT": row_ledger.slot(lane)}
        )
        common = {"NAMESPACE": "{lane}", "RETRY_GROUP": "inventory"}
        patience = {"RETRY_BUDGET": str(BUDGET), "RETRY_PAUSE_S": "0.01"}
        with System(
            lane,
            workers=[
                Worker("relay", relays.main, env=common),
                Worker("inventory", main, env={**common, "GROUP_INSTANCE_ID": "inventory"}),
                Worker("retry", cursed.retries, env={**common, **patience}),
            ],
            workload=customers,
            settled=[
                no_rows("outbox_pending"),
                group_drained("{lane}.inventory", "orders"),
                Condition("given up", still_tried),
                row_ledger.rows_recorded(["reservations"]),
            ],
            invariants=[one_row(rows.ledger, "reservations"), in_time(customers, rows.ledger)],
            within=within,
        ) as system:
            yield system


def still_tried(lane: Lane) -> str:
    """What is parked and has attempts left."""
    [(count,)] = lane.look("select count(*) from parked_orders where next_attempt_at is not null")
    return f"{count} orders are tried again" if count else ""


@pytest.fixture(scope="module")
def picture(onecharge: Session) -> Path:
    """Where the curve is drawn."""
    file = onecharge.output / PICTURE
    file.parent.mkdir(parents=True, exist_ok=True)
    return file


def test_neighbours_are_in_time(onecharge: Session, picture: Path) -> None:
    """Both are dead letters, a thousand orders have their goods in time, and the bad order's next event waits."""
    customers = Customers()
    with shop(onecharge, cursed.main, customers) as system:
        system.drill().require_holds()
        lane = system.lane
        reserved = "select count(*), count(distinct order_id) from reservations where state = 'reserved'"
        assert lane.look(reserved) == [(ORDERS, ORDERS)]
        waiting = "select order_id, convert_from(value, 'utf8')::json ->> 'seq' from parked_events order by place"
        assert lane.look(waiting) == [("cursed", "1"), ("cursed", "2")]
        letters = messages(Kafka(kafka_bootstrap_servers=lane.kafka, namespace=lane.name), "dead.inventory")
    curve = [Series("oldest order that waits, in seconds", customers.lag.values)]
    picture.write_text(page("Two bad events among a thousand", curve, customers.lag.marks), encoding="utf-8")

    told = {dict(letter.headers() or [])["x-kind"]: letter for letter in letters}
    assert len(letters) == 2
    assert told[b"poison"].value() == POISON
    assert told[b"failing"].key() == b"cursed"
    headers = dict(told[b"failing"].headers() or [])
    assert (headers["x-attempts"], headers["x-message"]) == (str(BUDGET).encode(), b"nobody can count cursed goods")


def test_endless_retry_is_found(onecharge: Session) -> None:
    """A group that tries an event for ever has its neighbours wait for too long."""
    customers = Customers()
    with shop(onecharge, cursed.endless, customers, within=15) as system:
        verdict = system.drill()
    assert "in time" in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
