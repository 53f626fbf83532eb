"""The whole shop behind the topic: payment, inventory and notification group, with the gateway and the retry workers.

Of three orders one can be paid and fulfilled, of one there is too little, so that what was paid is given back, and of
one the card is declined, so that what was reserved is given back.
"""

from __future__ import annotations

import contextlib
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows, one_effect_per_key
from chaos.invariants import Invariant, Ledger, Violation
from pipeline.gateway import server as gateway
from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.process import inventory, notification, payment, retry
from pipeline.publish import relay as relays
from pipeline.write import api as orders_api
from tests.fix_groups import DELIVERED, STOCK, STOCK_UP, TABLES, one_row, stock_balanced
from tests.fix_pipeline import SCHEMA, place
from tests.fix_slot import outbox_slot, slot_confirmed
from tests.twins import row_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chaos import Condition, Lane, Run, Session

GROUPS = ("payment", "inventory", "notification")
AMOUNT = 1999


def place_orders(run: Run) -> None:
    """Place the three. Each has its own outcome, whichever group is first."""
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, STOCK)
    for quantity, amount in ((2, AMOUNT), (STOCK + 1, AMOUNT), (1, DECLINED_AMOUNT)):
        place(run, sku=sku, quantity=quantity, amount=amount)


def settled_up(lane: Lane, charges: Ledger, refunds: Ledger) -> Invariant:
    """What an order has come to, and the gateway's logs, say the same: paid, paid and given back, or never paid."""

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for key, state in lane.execute("select order_id, state from orders where order_id = any(%s)", [list(keys)]):
            asked, back = charges.of(key), refunds.of(key)
            paid, given = (sum(record.effect for record in records) for records in (asked, back))
            right = {"confirmed": paid == 1 and not given, "failed": paid == given and bool(asked)}
            if not right.get(state, False):
                detail = f"is {state}, was charged {paid} times and refunded {given} times"
                found.append(Violation("settled up", key, detail, (*asked, *back)))
        return found

    return Invariant("settled up", check, charges, final=False)


class Books(NamedTuple):
    """Who has money and goods, and what their books have to say in the end."""

    gateway: str
    settled: Sequence[Condition]
    invariants: Sequence[Invariant]


def keep_books(lane: Lane, published: Condition | None = None) -> Books:
    """Have a gateway, and a log of each reservation and each mail, in the lane. Polling needs no `published`."""
    lane.execute(DELIVERED)
    row_ledger.setup(lane, TABLES)  # its slot goes with the database
    slot = {"SLOT": row_ledger.slot(lane)}
    rows = lane.trusted("rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env=slot).ledger
    psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
    refunds = Ledger(psp.ledger.path.with_suffix(".refunds.jsonl"), key="order_id")
    drained = (group_drained(f"{{lane}}.{name}", "orders") for name in GROUPS)
    return Books(
        psp.url,
        [published or no_rows("outbox_pending"), *drained, no_rows("parked_orders"), row_ledger.rows_recorded(TABLES)],
        [
            one_effect_per_key(psp.ledger),
            settled_up(lane, psp.ledger, refunds),
            *(one_row(rows, table) for table in TABLES),
            stock_balanced(lane, rows),
        ],
    )


@contextlib.contextmanager
def shop(
    session: Session,
    *,
    payment: Callable[[], object] = payment.main,
    payment_retries: Callable[[], object] = retry.main,
    replicas: int = 1,
    partitions: int = 1,
    dynamic: bool = False,
    from_log: bool = False,
    workload: Callable[[Run], object] = place_orders,
    grace: float = 1.0,
    within: float = 60.0,
    env: Mapping[str, str] = MappingProxyType({}),
    own_servers: bool = False,
) -> Iterator[System]:
    """API, relay, the three groups and their retry workers, in a lane of their own.

    Args:
        session: the test run.
        payment: charges and refunds.
        payment_retries: tries again what it has parked.
        replicas: of it.
        partitions: of the topic.
        dynamic: whether members are dynamic ones of their groups; one that was killed is missed after 0.5 s.
        from_log: whether the relay is one that reads the log; it is called ``cdc`` then.
        workload: what is done in each drill.
        grace: as for `System`.
        within: likewise.
        env: more for all of them.
        own_servers: as for `Session.lane`. A static member that Kafka has expelled meanwhile may end, and is managed.
    """
    topics = {"orders": partitions, **{f"retry.{group}": 1 for group in GROUPS}}
    with (
        session.lane(schema=SCHEMA, topics=topics, own_servers=own_servers) as lane,
        outbox_slot(lane) if from_log else contextlib.nullcontext(),
    ):
        books = keep_books(lane, slot_confirmed() if from_log else None)
        common = {"NAMESPACE": "{lane}", "RELAY_NAME": "relay", "GATEWAY_URL": books.gateway, "SLOT": "{lane}", **env}
        relay = "cdc" if from_log else "relay"

        def member(name: str, main: Callable[[], object], count: int = 1) -> Worker:
            one = {"SESSION_TIMEOUT_MS": "500"} if dynamic else {"GROUP_INSTANCE_ID": f"{name}-{{replica}}"}
            return Worker(name, main, count, env=common | one, managed=own_servers)

        with System(
            lane,
            workers=[
                Worker("api", orders_api.main, http=True, env=common),
                Worker(relay, relays.main, env=common | {"RELAY": "cdc" if from_log else "polling"}),
                member("payment", payment, replicas),
                member("inventory", inventory.main),
                member("notification", notification.main),
                *(
                    Worker(f"retry-{name}", main, env={**common, "RETRY_GROUP": name})
                    for name, main in zip(GROUPS, (payment_retries, retry.main, retry.main), strict=True)
                ),
            ],
            workload=workload,
            settled=books.settled,
            invariants=books.invariants,
            grace=grace,
            within=within,
        ) as system:
            yield system


dynamic_shop = partial(shop, dynamic=True, replicas=2, partitions=2)
