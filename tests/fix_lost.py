"""Confirmations that are lost: the shop, whose payment group cannot keep what it was answered, with a reconciler.

The gateway has charged such an order, and the event that says so is given up. When the order has been pending for too
long, the reconciler asks the gateway; at the same moment the books are mended, and the event is sent back.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows
from chaos.waiting import Deadline, wait_until
from pipeline import reconcile
from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.process import inventory, notification
from pipeline.publish import relay as relays
from tests.fix_groups import PLACED, STOCK, STOCK_UP
from tests.fix_pipeline import SCHEMA
from tests.fix_returns import GIVEN_UP, MEND, PATIENCE_S, see
from tests.fix_shop import AMOUNT, GROUPS, keep_books
from tests.twins import mendable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, Session

ORDER = """
    insert into orders (order_id, customer_id, sku, quantity, amount, currency, created_at)
    values (%s, 'c-1', %s, %s, %s, 'EUR', now() - make_interval(secs => %s))
"""
STOCK_KNOWN = "select 1 from orders where order_id = %s and stock is not null"
AN_HOUR_AGO = "update orders set created_at = created_at - interval '1 hour' where order_id = %s"
NOW = "select clock_timestamp()"
# The reconciler begins a round every 20 ms; its last statement is as old as that.
LOOKED = """
    select from pg_stat_activity
    where datname = current_database() and application_name = 'reconcile' and query_start > %s
"""
MAILED = "select 1 from mails where order_id = %s"
# What is mended and was not sent back. Where the reconciler was first nothing else waits for the operator.
NOT_SENT_BACK = "(select from broken where mended offset (select count(*) from replays)) as not_sent_back"
OVERDUE_S = 60.0  # far more than any drill takes


def place(run: Run, sku: str, quantity: int, amount: int, *, ago_s: float = 0.0, broken: bool = False) -> str:
    """An order as the API has accepted it some time ago; whether its books are broken."""
    order_id, event_id = run.new_key(), str(uuid4())
    if broken:
        run.execute("insert into broken (what) values (%s)", order_id)
    event = {"event_id": event_id, "type": "order.placed", "order_id": order_id, "seq": 1, "customer_id": "c-1"}
    wanted = {"sku": sku, "quantity": quantity, "amount": amount, "currency": "EUR"}
    run.execute(ORDER, order_id, sku, quantity, amount, ago_s)
    run.execute(PLACED, event_id, order_id, json.dumps(event | wanted))
    run.accept(order_id)
    return order_id


def lose(run: Run, sku: str, quantity: int, amount: int) -> str:
    """Place an order whose books are broken, and see it given up."""
    order_id = place(run, sku, quantity, amount, broken=True)
    see(run, STOCK_KNOWN, order_id)
    see(run, GIVEN_UP, order_id)
    return order_id


def come_after_all(run: Run, order_id: str) -> None:
    """The order is overdue, which the reconciler has seen; while it asks about it, the books are mended."""
    run.execute(AN_HOUR_AGO, order_id)
    [(at,)] = run.execute(NOW)
    looked = partial(run.execute, LOOKED, at)
    wait_until("the reconciler to look", lambda: bool(looked()), Deadline(PATIENCE_S), every=0.005)
    run.execute(MEND, order_id)


def one_is_lost(run: Run) -> None:
    """Of two orders the confirmation of one is lost; then it comes, and it is asked for, both at once."""
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, STOCK)
    see(run, MAILED, place(run, sku, 1, AMOUNT))
    come_after_all(run, lose(run, sku, 1, AMOUNT))


def all_are_lost(run: Run) -> None:
    """Likewise, of many orders with every outcome."""
    lost = []
    for quantity, amount in ((1, AMOUNT), (STOCK + 1, AMOUNT), (1, DECLINED_AMOUNT)) * 5:
        sku = f"sku-{uuid4()}"
        run.execute(STOCK_UP, sku, STOCK)
        lost.append(lose(run, sku, quantity, amount))
    for order_id in lost:
        come_after_all(run, order_id)


def all_are_late(run: Run) -> None:
    """Nothing is lost: the events of orders that are overdue are on their way only now."""
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, 100)
    for _ in range(20):
        place(run, sku, 1, AMOUNT, ago_s=2 * OVERDUE_S)


@contextlib.contextmanager
def lost_confirmations(
    session: Session,
    *,
    reconciler: Callable[[], object] = reconcile.main,
    workload: Callable[[Run], object] = one_is_lost,
    within: float = 60.0,
    grace: float = 1.0,
) -> Iterator[System]:
    """Relay, three groups, payment's retry worker, reconciler, and who sends dead letters back, in a lane of their own.

    Args:
        session: the test run.
        reconciler: resolves what is pending for too long.
        workload: what is done in each drill.
        within: as for `System`.
        grace: likewise.
    """
    topics = {"orders": 1, "dead.payment": 1, **{f"retry.{group}": 1 for group in GROUPS}}
    with session.lane(schema=SCHEMA, topics=topics) as lane:
        lane.execute(mendable.TABLE)
        books = keep_books(lane)
        common = {"NAMESPACE": "{lane}", "RELAY_NAME": "relay", "GATEWAY_URL": books.gateway}
        patience = {"RETRY_GROUP": "payment", "RETRY_BUDGET": "5", "RETRY_PAUSE_S": "0.01", "RETRY_INTERVAL_S": "0.02"}
        overdue = {"RECONCILE_AFTER_S": str(OVERDUE_S), "RECONCILE_INTERVAL_S": "0.02", "PGAPPNAME": "reconcile"}

        def member(name: str, main: Callable[[], object]) -> Worker:
            return Worker(name, main, env={**common, "GROUP_INSTANCE_ID": name})

        with System(
            lane,
            workers=[
                Worker("relay", relays.main, env=common),
                member("payment", mendable.books),
                member("inventory", inventory.main),
                member("notification", notification.main),
                Worker("retry", mendable.books_retries, env=common | patience),
                Worker("operator", mendable.operate_books, env=common),
                Worker("reconcile", reconciler, env=common | overdue),
            ],
            workload=workload,
            settled=[no_rows(NOT_SENT_BACK), *books.settled, group_drained("{lane}.payment", "retry.payment")],
            invariants=books.invariants,
            within=within,
            grace=grace,
        ) as system:
            yield system
