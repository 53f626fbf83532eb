"""Confirmations that are lost: the shop, whose payment group cannot keep what it was answered, with a reconciler.

The gateway has charged such an order, and the event that says so is given up. When the order has been pending for too
long, the reconciler asks the gateway; at the same moment the books are mended, and the event is sent back.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows, one_effect_per_key
from chaos.invariants import Ledger
from pipeline import reconcile
from pipeline.gateway import server as gateway
from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.process import inventory, notification
from pipeline.publish import relay as relays
from tests.fix_groups import DELIVERED, STOCK, STOCK_UP, TABLES, one_row, stock_balanced
from tests.fix_pipeline import SCHEMA
from tests.fix_returns import GIVEN_UP, MEND, see
from tests.fix_shop import AMOUNT, GROUPS, place, settled_up
from tests.twins import mendable, row_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, Session

STOCK_KNOWN = "select 1 from orders where order_id = %s and stock is not null"
AN_HOUR_AGO = "update orders set created_at = created_at - interval '1 hour' where order_id = any(%s)"
MAILED = "select 1 from mails where order_id = %s"
OVERDUE_S = 60.0  # far more than any drill takes


def lose(run: Run, sku: str, quantity: int, amount: int) -> str:
    """Place an order whose books are broken, and see it given up."""
    order_id = place(run, sku, quantity, amount, broken=True)
    see(run, STOCK_KNOWN, order_id)
    see(run, GIVEN_UP, order_id)
    return order_id


def one_is_lost(run: Run) -> None:
    """Of two orders the confirmation of one is lost; then it comes, and it is asked for, both at once."""
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, STOCK)
    see(run, MAILED, place(run, sku, 1, AMOUNT))
    lost = lose(run, sku, 1, AMOUNT)
    run.execute(AN_HOUR_AGO, [lost])
    run.execute(MEND, lost)


def all_are_lost(run: Run) -> None:
    """Likewise, of many orders with every outcome."""
    lost = []
    for quantity, amount in ((1, AMOUNT), (STOCK + 1, AMOUNT), (1, DECLINED_AMOUNT)) * 5:
        sku = f"sku-{uuid4()}"
        run.execute(STOCK_UP, sku, STOCK)
        lost.append(lose(run, sku, quantity, amount))
    for order_id in lost:
        run.execute(AN_HOUR_AGO, [order_id])
        run.execute(MEND, order_id)


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
        for table in (DELIVERED, mendable.TABLE):
            lane.execute(table)
        row_ledger.setup(lane, TABLES)  # its slot goes with the database
        slot = {"SLOT": row_ledger.slot(lane)}
        rows = lane.trusted("rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env=slot).ledger
        psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
        refunds = Ledger(psp.ledger.path.with_suffix(".refunds.jsonl"), key="order_id")
        common = {"NAMESPACE": "{lane}", "RELAY_NAME": "relay", "GATEWAY_URL": psp.url}
        patience = {"RETRY_GROUP": "payment", "RETRY_BUDGET": "5", "RETRY_PAUSE_S": "0.01", "RETRY_INTERVAL_S": "0.02"}
        overdue = {"RECONCILE_AFTER_S": str(OVERDUE_S), "RECONCILE_INTERVAL_S": "0.02"}

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
            settled=[
                no_rows("outbox_pending"),
                *(group_drained(f"{{lane}}.{name}", "orders") for name in GROUPS),
                group_drained("{lane}.payment", "retry.payment"),
                no_rows("parked_orders"),
                row_ledger.rows_recorded(TABLES),
            ],
            invariants=[
                one_effect_per_key(psp.ledger),
                settled_up(lane, psp.ledger, refunds),
                *(one_row(rows, table) for table in TABLES),
                stock_balanced(lane, rows),
            ],
            within=within,
            grace=grace,
        ) as system:
            yield system
