"""Letters that die and come back: the inventory group with all that becomes of an event which it cannot handle.

Of three orders one is good, one has goods that are broken and an event behind, and one is malformed. The second goes
the whole way: a few attempts in its place, parked, tried again, buried, sent back when its goods are mended, handled,
and after it the event that waited. The third is buried at once.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows
from chaos.errors import NotInTime
from chaos.invariants import Invariant, Violation
from chaos.waiting import Deadline, wait_until
from pipeline.publish import relay as relays
from tests.fix_groups import DELIVERED, ORDER, PLACED, STOCK_UP, placed, stock_balanced
from tests.fix_pipeline import SCHEMA
from tests.twins import mendable, row_ledger, topic_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from chaos import Lane, Run, Session
    from chaos.invariants import Ledger

PATIENCE_S = 15.0  # only what is lost takes that long, and a part of `within`; a slow machine has taken 5
BUDGET = 5  # four attempts in its place, and one more

EXPECTED = "create table expected (order_id text primary key, handled boolean not null)"
EXPECT = "insert into expected values (%s, %s)"
BREAK = "insert into broken (what) values (%s)"
MEND = "update broken set mended = true where what = %s"
FAILED = """
    with failed as (
        update orders set state = 'failed', last_seq = 2 where order_id = %s
        returning gen_random_uuid() as event_id, order_id, customer_id, last_seq as seq, 'order.failed' as type
    )
    insert into outbox (event_id, order_id, seq, type, payload)
    select event_id, order_id, seq, type, row_to_json(failed) from failed
"""
RESERVED = "select 1 from reservations where order_id = %s"
PARKED = "select 1 from parked_orders where order_id = %s"
BEHIND = "select 1 from parked_events where order_id = %s offset 1"
GIVEN_UP = "select 1 from parked_orders where order_id = %s and next_attempt_at is null"
ALL_GIVEN_UP = "select order_id from parked_orders where order_id = any(%s) and next_attempt_at is null"
SENT_BACK = """
    select order_id from parked_events join replays
        on replays.origin = format('%%s[%%s]@%%s', parked_events.origin ->> 0, parked_events.origin ->> 1,
            parked_events.origin ->> 2)
    where order_id = any(%s)
"""


def goods(run: Run, quality: str) -> str:
    """New ones, of which there is enough."""
    sku = f"{quality}-{uuid4()}"
    run.execute(STOCK_UP, sku, 1_000)
    if quality == "broken":
        run.execute(BREAK, sku)
    return sku


def place(run: Run, sku: str) -> str:
    """An order for such goods."""
    order_id = run.new_key()
    run.execute(ORDER, order_id, None)
    run.execute(EXPECT, order_id, True)
    run.execute(PLACED, *placed(order_id, sku, 2))
    run.accept(order_id)
    return order_id


def see(run: Run, query: str, order_id: str) -> None:
    """Wait until the query finds something, or for long enough: what is lost is for others to judge."""
    with contextlib.suppress(NotInTime):
        wait_until(query, lambda: bool(run.execute(query, order_id)), Deadline(PATIENCE_S), every=0.005)


def place_three(run: Run) -> None:
    """One after the other, so that every run has the same effects."""
    see(run, RESERVED, place(run, goods(run, "good")))

    sku = goods(run, "broken")
    order_id = place(run, sku)
    see(run, PARKED, order_id)
    run.execute(FAILED, order_id)
    see(run, BEHIND, order_id)
    see(run, GIVEN_UP, order_id)

    malformed = run.new_key()
    run.execute(EXPECT, malformed, False)
    event = {"event_id": str(uuid4()), "type": "order.placed", "order_id": malformed, "seq": "first"}
    run.produce("orders", json.dumps(event).encode(), key=malformed.encode())
    run.accept(malformed)

    run.execute(MEND, sku)


def accounted_for(lane: Lane, rows: Ledger, dead: Ledger) -> Invariant:
    """What can be handled was, once; what cannot is a dead letter, and nothing else is but what was broken."""

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for key, handled in lane.execute("select * from expected where order_id = any(%s)", [list(keys)]):
            reserved, letters = rows.of(key), dead.of(key)
            if len(reserved) != handled:
                found.append(Violation("accounted for", key, f"has {len(reserved)} reservations", tuple(reserved)))
            if not handled and not letters:
                found.append(Violation("accounted for", key, "is neither handled nor a dead letter"))
        return found

    return Invariant("accounted for", check, rows, final=False)


def noted_is_done(lane: Lane, dead: Ledger, back: Ledger) -> Invariant:
    """Who is given up has a letter, and who was sent back is on the retry topic.

    Each of them is noted behind Kafka's confirmation, so a note without it stays wrong. That of one which has just been
    written may not be in the ledger yet; a drill that did not settle is judged many seconds later.
    """

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for what, query, ledger in (("given up", ALL_GIVEN_UP, dead), ("sent back", SENT_BACK, back)):
            for (key,) in lane.execute(query, [list(keys)]):
                if not ledger.of(key):
                    found.append(Violation("noted is done", key, f"was {what}, it is said, and Kafka has no letter"))
        return found

    return Invariant("noted is done", check, dead, final=True)


@contextlib.contextmanager
def returns(
    session: Session,
    *,
    inventory: Callable[[], object] = mendable.main,
    retries: Callable[[], object] = mendable.retries,
    operator: Callable[[], object] = mendable.operate,
    dynamic: bool = False,
    workload: Callable[[Run], object] = place_three,
    limit: int = 1_000,
    within: float = 60.0,
    grace: float = 1.0,
) -> Iterator[System]:
    """Relay, inventory group, its retry worker, and who sends back what is dead, in a lane of their own.

    Args:
        session: the test run.
        inventory: cannot handle broken goods.
        retries: tries again what it has parked.
        operator: sends dead letters back once goods are mended.
        dynamic: whether the member is a dynamic one of its group; killed, it is missed after 0.5 s.
        workload: what is done in each drill.
        limit: of what is parked.
        within: as for `System`.
        grace: likewise.
    """
    topics = {"orders": 1, "retry.inventory": 1, "dead.inventory": 1}
    with session.lane(schema=SCHEMA, topics=topics) as lane:
        for table in (DELIVERED, EXPECTED, mendable.TABLE):
            lane.execute(table)
        row_ledger.setup(lane, ["reservations"])  # its slot goes with the database
        slot = {"SLOT": row_ledger.slot(lane)}
        rows = lane.trusted("rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env=slot).ledger
        dead, back = (
            lane.trusted(
                name,
                topic_ledger.main,
                ledger=f"{name}.jsonl",
                key="order_id",
                env={"TOPIC": f"{{topics[{topic}]}}", "GROUP": f"{{lane}}.{name}", "COPIES": "no effect"},
            ).ledger
            for name, topic in (("dead", "dead.inventory"), ("back", "retry.inventory"))
        )
        common = {"NAMESPACE": "{lane}"}
        member = {"SESSION_TIMEOUT_MS": "500"} if dynamic else {"GROUP_INSTANCE_ID": "inventory"}
        member["PARKING_LIMIT"] = str(limit)
        patience = {"RETRY_GROUP": "inventory", "RETRY_BUDGET": str(BUDGET), "RETRY_PAUSE_S": "0.01"}
        with System(
            lane,
            workers=[
                Worker("relay", relays.main, env={**common, "RELAY_NAME": "relay"}),
                Worker("inventory", inventory, env=common | member),
                Worker("retry", retries, env={**common, **patience, "RETRY_INTERVAL_S": "0.02"}),
                Worker("operator", operator, env=common),
            ],
            workload=workload,
            settled=[
                no_rows("outbox_pending"),
                group_drained("{lane}.inventory", "orders"),
                group_drained("{lane}.inventory", "retry.inventory"),
                no_rows("parked_orders"),
                group_drained("{lane}.dead", "dead.inventory"),
                group_drained("{lane}.back", "retry.inventory"),
                row_ledger.rows_recorded(["reservations"]),
            ],
            invariants=[accounted_for(lane, rows, dead), stock_balanced(lane, rows), noted_is_done(lane, dead, back)],
            within=within,
            grace=grace,
        ) as system:
            yield system


dynamic_returns = partial(returns, dynamic=True)
