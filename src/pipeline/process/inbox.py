"""Which events a consumer group has acted upon: the memory that turns "delivered at least once" into "done once"."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    import psycopg

FIRST_TIMES = """
    insert into inbox (consumer_group, event_id) select %s, unnest(%b::uuid[])
    on conflict do nothing returning event_id
"""


def first_time(connection: psycopg.Connection, group: str, event_id: UUID) -> bool:
    """Note the event as seen by `group`; False if it was already. Call it in the transaction of the effect.

    If another member is working on the event this moment, it waits for that member's transaction to end. `on conflict`
    rather than catching a unique violation, which would have aborted the transaction we are in.
    """
    insert = "insert into inbox (consumer_group, event_id) values (%s, %s) on conflict do nothing"
    return connection.execute(insert, [group, event_id]).rowcount == 1


def first_times(connection: psycopg.Connection, group: str, event_ids: Iterable[UUID]) -> set[UUID]:
    """Note events as seen by `group`; those that it has not seen before. As `first_time`, for many.

    In the order of their ids, whatever their order is: two members that have the same events wait for each other, and
    not both at once.
    """
    ordered = sorted(event_ids, key=attrgetter("int"))  # UUIDs compare by that too, at thrice the time
    found = connection.execute(FIRST_TIMES, [group, ordered])
    if found.rowcount == len(ordered):
        return set(ordered)
    return {event_id for (event_id,) in found}
