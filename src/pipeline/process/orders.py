"""What the groups tell an order, and what it has come to: who completes the picture writes the outcome, once.

An order is confirmed when it is charged and its goods are reserved, and has failed when it is known that one of them
will not be. The outcome is an event of the order's, in the transaction that has decided it. The order's row is locked
first, in the order of ids: so one of two groups is the second, and sees what the first has said.

An event may be here before its order can be seen: a commit is in the log, and sent by whoever reads that, a moment
before other transactions see it. Nobody would tell the order later, so that is an error, and the event is tried again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

PAYMENT = """
    update orders set payment = told.result from unnest(%b::text[], %b::text[]) as told (order_id, result)
    where orders.order_id = told.order_id
"""
STOCK = """
    update orders set stock = told.result from unnest(%b::text[], %b::text[]) as told (order_id, result)
    where orders.order_id = told.order_id
"""
LOCK = "select from orders where order_id = any(%b) order by order_id for update"
OUTCOME = """
    with decided as (
        update orders set
            state = case when payment = 'charged' and stock = 'reserved' then 'confirmed' else 'failed' end,
            last_seq = last_seq + 1
        where order_id = any(%b) and state = 'pending' and payment is not null and stock is not null
        returning gen_random_uuid() as event_id, order_id, customer_id, last_seq as seq, 'order.' || state as type
    )
    insert into outbox (event_id, order_id, seq, type, payload, traceparent)
    select event_id, order_id, seq, type, row_to_json(decided),
        (select traceparent from outbox as first where first.order_id = decided.order_id and first.seq = 1)
    from decided
"""


class Unseen(Exception):
    """There is no such order, or not yet."""


def settle(connection: psycopg.Connection, part: str, orders: Sequence[str], results: Sequence[str]) -> None:
    """Tell each of the orders a result, as `PAYMENT` or as `STOCK`, and write the outcomes that follow.

    Raises:
        Unseen: not all of them are there.
    """
    if (seen := connection.execute(LOCK, [list(orders)]).rowcount) < len({*orders}):
        raise Unseen(f"{seen} of {len({*orders})} orders can be seen, of which the first is {orders[0]!r}")
    connection.execute(part, [list(orders), list(results)])
    connection.execute(OUTCOME, [list(orders)])
