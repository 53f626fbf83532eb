"""The order pipeline with the CDC relay in the place of the polling one."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from chaos import Condition, System, Worker, group_drained, nothing_lost, one_effect_per_key
from chaos.waiting import Deadline, wait_until
from pipeline.gateway import server as gateway
from pipeline.process import payment
from pipeline.publish import cdc
from pipeline.write import api as orders_api
from tests.fix_pipeline import SCHEMA, place_orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane, Session

PUBLICATION = "create publication outbox for table outbox with (publish = 'insert')"


def slot_confirmed() -> Condition:
    """The lane's slot has confirmed everything that was in the outbox when the outbox last grew."""
    seen = (-1, "0/0")

    def outstanding(lane: Lane) -> str:
        nonlocal seen
        [(count, end)] = lane.look("select (select count(*) from outbox), pg_current_wal_insert_lsn()::text")
        if count != seen[0]:  # its commit is in the log, or it could not be seen
            seen = (count, end)
        behind = f"slot_name = '{lane.name}' and confirmed_flush_lsn < '{seen[1]}'"
        left = lane.look(f"select confirmed_flush_lsn::text from pg_replication_slots where {behind}")  # noqa: S608 - ours
        return f"the slot has confirmed {left[0][0]} of {seen[1]}" if left else ""

    return Condition("slot confirmed", outstanding)


@contextlib.contextmanager
def cdc_pipeline(session: Session, relay: Callable[[], object] = cdc.main, *, partitions: int = 1) -> Iterator[System]:
    """API, CDC relay and payment consumer, in a lane of their own with a slot of its name."""
    with session.lane(schema=SCHEMA, topics={"orders": partitions}) as lane:
        lane.execute(PUBLICATION)
        lane.execute(f"select pg_create_logical_replication_slot('{lane.name}', 'pgoutput')")
        psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
        common = {"NAMESPACE": "{lane}", "GATEWAY_URL": psp.url}
        workers = [
            Worker("api", orders_api.main, http=True, env=common),
            Worker("relay", relay, env={**common, "SLOT": "{lane}"}),
            Worker("payment", payment.main, env={**common, "GROUP_INSTANCE_ID": "payment-{replica}"}),
        ]
        try:
            with System(
                lane,
                workers=workers,
                workload=place_orders,
                settled=[slot_confirmed(), group_drained("{lane}.payment", "orders")],
                invariants=[one_effect_per_key(psp.ledger), nothing_lost(psp.ledger)],
            ) as system:
                yield system
        finally:
            wait_until("the slot to be free", partial(_dropped, lane), Deadline(10))


def _dropped(lane: Lane) -> bool:
    """Drop the slot unless somebody reads it; a database that has one cannot be dropped."""
    mine = f"from pg_replication_slots where slot_name = '{lane.name}'"
    lane.execute(f"select pg_drop_replication_slot(slot_name) {mine} and not active")
    return not lane.look(f"select {mine}")
