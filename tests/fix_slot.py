"""A logical slot of a lane, and when it has nothing left to do."""

from __future__ import annotations

import contextlib
from functools import partial
from typing import TYPE_CHECKING

from psycopg.errors import ObjectInUse

from chaos import Condition
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane

PATIENCE_S = 10.0


@contextlib.contextmanager
def outbox_slot(lane: Lane) -> Iterator[None]:
    """A slot with the lane's name for what is inserted into the outbox."""
    lane.execute(f"select pg_create_logical_replication_slot('{lane.name}', 'pgoutput')")
    try:
        yield
    finally:
        wait_until("the slot to be free", partial(dropped, lane, lane.name), Deadline(PATIENCE_S))


def dropped(lane: Lane, slot: str) -> bool:
    """Drop a slot unless somebody reads it; a database that has one cannot be dropped."""
    mine = f"from pg_replication_slots where slot_name = '{slot}'"
    with contextlib.suppress(ObjectInUse):  # since it was looked at
        lane.execute(f"select pg_drop_replication_slot(slot_name) {mine} and not active")
    return not lane.look(f"select {mine}")


def slot_confirmed() -> Condition:
    """The lane's slot has confirmed everything that was in the outbox when the outbox last grew."""
    seen = (-1, "0/0")

    def outstanding(lane: Lane) -> str:
        nonlocal seen
        [(count, end)] = lane.look("select (select count(*) from outbox), pg_current_wal_insert_lsn()::text")
        if not count:
            return ""
        if count != seen[0]:  # its commit is in the log, or it could not be seen
            seen = (count, end)
        behind = f"slot_name = '{lane.name}' and confirmed_flush_lsn < '{seen[1]}'"
        left = lane.look(f"select confirmed_flush_lsn::text from pg_replication_slots where {behind}")  # noqa: S608 - ours
        return f"the slot has confirmed {left[0][0]} of {seen[1]}" if left else ""

    return Condition("slot confirmed", outstanding)
