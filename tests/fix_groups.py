"""Orders, goods and mails: the inventory and the notification group as a system under test, with the retry workers."""

from __future__ import annotations

import contextlib
import json
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows
from chaos.invariants import Invariant, Violation
from pipeline.process import inventory, notification, retry
from pipeline.publish import relay as relays
from tests.fix_pipeline import SCHEMA
from tests.twins import row_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chaos import Lane, Run, Session
    from chaos.invariants import Ledger

TABLES = ("reservations", "mails")
STOCK = 3

DELIVERED = "create table delivered (sku text primary key, quantity bigint not null)"
STOCK_UP = "with goods as (insert into delivered values (%s, %s) returning *) insert into stock select * from goods"
ORDER = "insert into orders values (%s, 'c-1', 'sku-1', 1, 1999, 'EUR', default, %s)"
PLACED = """
    insert into outbox (event_id, order_id, seq, type, payload) values (%s, %s, 1, 'order.placed', %s)
"""


def placed(order_id: str, sku: str, quantity: int) -> tuple[str, str, str]:
    """What is known of an order's first event: id, order and payload."""
    event_id = str(uuid4())
    event = {"event_id": event_id, "type": "order.placed", "order_id": order_id, "seq": 1}
    return event_id, order_id, json.dumps({**event, "customer_id": "c-1", "sku": sku, "quantity": quantity})


def place_orders(run: Run) -> None:
    """Place three orders whose payments are known: one can be fulfilled, of one there is too little, one was declined.

    Whichever comes first: a choice between two would give points other names from run to run.
    """
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, STOCK)
    for quantity, payment in ((2, "charged"), (STOCK + 1, "charged"), (1, "declined")):
        order_id = run.new_key()
        run.execute(ORDER, order_id, payment)
        run.execute(PLACED, *placed(order_id, sku, quantity))
        run.accept(order_id)


def one_row(ledger: Ledger, table: str) -> Invariant:
    """Each order has one row in the table, however often its event was delivered."""
    name = f"one of {table}"

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for key in keys:
            rows = tuple(record for record in ledger.of(key) if record.field("table") == table)
            if len(rows) != 1:
                found.append(Violation(name, key, f"has {len(rows)} rows in {table}", rows))
        return found

    return Invariant(name, check, ledger, final=False)


def stock_balanced(lane: Lane, ledger: Ledger) -> Invariant:
    """What was delivered is there or reserved, and what a failed order had is there again."""
    unbalanced = """
        select sku, quantity, available,
            (select coalesce(sum(r.quantity), 0) from reservations as r where r.sku = d.sku and state = 'reserved')
        from delivered as d join stock using (sku)
        where sku in (select sku from reservations where order_id = any(%s)) and quantity <> available +
            (select coalesce(sum(r.quantity), 0) from reservations as r where r.sku = d.sku and state = 'reserved')
    """
    kept = """
        select order_id from reservations join orders using (order_id)
        where order_id = any(%s) and (orders.state = 'failed') = (reservations.state = 'reserved')
    """

    def check(keys: Sequence[str]) -> list[Violation]:
        found = [
            Violation("stock balanced", sku, f"had {had}, has {has}, and {reserved} are reserved")
            for sku, had, has, reserved in lane.execute(unbalanced, [list(keys)])
        ]
        for (key,) in lane.execute(kept, [list(keys)]):
            found.append(Violation("stock balanced", key, "has not what its state says", tuple(ledger.of(key))))
        return found

    return Invariant("stock balanced", check, ledger, final=False)


@contextlib.contextmanager
def groups(
    session: Session,
    *,
    inventory: Callable[[], object] = inventory.main,
    notification: Callable[[], object] = notification.main,
    replicas: int = 1,
    partitions: int = 1,
    dynamic: bool = False,
    workload: Callable[[Run], object] = place_orders,
    within: float = 60.0,
    grace: float = 1.0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[System]:
    """Relay, inventory and notification group, or twins of them, and their retry workers, in a lane of their own.

    Args:
        session: the test run.
        inventory: reserves goods.
        notification: writes mails.
        replicas: of each of the two.
        partitions: of the topic.
        dynamic: whether they are dynamic members of their groups; one that was killed is missed after 0.5 s.
        workload: what is done in each drill.
        within: as for `System`.
        grace: likewise.
        env: more for the groups and the retry workers.
    """
    topics = {"orders": partitions, "retry.inventory": 1, "retry.notification": 1}
    with session.lane(schema=SCHEMA, topics=topics) as lane:
        lane.execute(DELIVERED)
        row_ledger.setup(lane, TABLES)  # its slot goes with the database
        rows = lane.trusted(
            "rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env={"SLOT": row_ledger.slot(lane)}
        )
        common = {"NAMESPACE": "{lane}", "RELAY_NAME": "relay-{replica}"}

        def member(name: str, main: Callable[[], object]) -> Worker:
            one = {"SESSION_TIMEOUT_MS": "500"} if dynamic else {"GROUP_INSTANCE_ID": f"{name}-{{replica}}"}
            return Worker(name, main, replicas, env={**common, **one, **env})

        def retries(name: str) -> Worker:
            return Worker(f"retry-{name}", retry.main, env={**common, "RETRY_GROUP": name, **env})

        with System(
            lane,
            workers=[
                Worker("relay", relays.main, env=common),
                member("inventory", inventory),
                member("notification", notification),
                retries("inventory"),
                retries("notification"),
            ],
            workload=workload,
            settled=[
                no_rows("outbox_pending"),
                group_drained("{lane}.inventory", "orders"),
                group_drained("{lane}.notification", "orders"),
                no_rows("parked_orders"),
                row_ledger.rows_recorded(TABLES),
            ],
            invariants=[one_row(rows.ledger, table) for table in TABLES] + [stock_balanced(lane, rows.ledger)],
            within=within,
            grace=grace,
        ) as system:
            yield system
