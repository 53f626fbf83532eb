"""Parking: an order of which a group could not handle an event waits in Postgres, and its neighbours flow.

The event that failed and all later ones of its order are kept as they were on the topic, in their order. All of it is
written in the transaction that writes the inbox, before the offset is committed: an event is handled, or parked, or it
comes again. One that comes again while it is parked changes nothing.

Who handles an order's first event (`pipeline.process.retry`) holds the order's row FOR NO KEY UPDATE; who adds one
behind, FOR KEY SHARE, so the group does not wait while the first is tried. An order is free when its row is deleted.
That waits for whoever is adding, and looks again; who wants to add later finds no row, and handles the event itself.

An order whose first event was buried (`pipeline.quarantine.dead`) is not tried any more, and its later ones still wait:
until the first has come back by the group's retry topic.

Parking has a limit. When it is full nothing more is read until there is room: to drop the event would lose it, and to
let the order's later ones pass would overtake it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.quarantine.letters import Letter
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    import psycopg

WAITING = """
    select order_id from parked_orders where consumer_group = %s and order_id = any(%b) order by order_id for key share
"""
COUNT = "select count(*) from (select from parked_events where consumer_group = %s limit %s) as few"
PARK = """
    insert into parked_orders (consumer_group, order_id, attempts, next_attempt_at, reason)
    values (%s, %s, %s, now() + make_interval(secs => %s), %s) on conflict do nothing
"""
ADD = """
    insert into parked_events (consumer_group, order_id, event_id, origin, key, value)
    values (%s, %s, %s, %s, %s, %s) on conflict do nothing
"""
BACK = """
    update parked_orders set attempts = 0, next_attempt_at = now()
    where consumer_group = %s and order_id = any(%b) and next_attempt_at is null
"""
DUE = """
    select order_id, attempts, extract(epoch from since)::float8 from parked_orders
    where consumer_group = %s and next_attempt_at <= now()
    order by next_attempt_at limit 1 for no key update skip locked
"""
HEAD = """
    select event_id, origin, key, value from parked_events where consumer_group = %s and order_id = %s
    order by place limit 1
"""
AGAIN = """
    update parked_orders set attempts = %s, next_attempt_at = now() + make_interval(secs => %s), reason = %s
    where consumer_group = %s and order_id = %s
"""
REMOVE = "delete from parked_events where consumer_group = %s and event_id = %s"
NEXT = """
    update parked_orders set attempts = 0, next_attempt_at = now() where consumer_group = %s and order_id = %s
"""
LOCK = "select from parked_orders where consumer_group = %s and order_id = %s for update skip locked"
FREE = """
    delete from parked_orders as one where consumer_group = %s and order_id = %s and not exists
        (select from parked_events as e where e.consumer_group = one.consumer_group and e.order_id = one.order_id)
"""


class Full(Unavailable):
    """There is no room for another event."""


class Parked(NamedTuple):
    """An event that is set aside."""

    order_id: str
    event_id: UUID
    letter: Letter


class Due(NamedTuple):
    """An order whose first event may be tried; so often it was, since then (Unix seconds)."""

    order_id: str
    attempts: int
    since: float


class Parking:
    """The orders that `group` has parked; at most `limit` events. Each call is part of a transaction by its caller."""

    def __init__(self, group: str, limit: int) -> None:
        self._group, self._limit = group, limit

    def waiting(self, connection: psycopg.Connection, orders: Collection[str]) -> set[str]:
        """Those of the orders that wait. They stay parked until the transaction ends."""
        return {order_id for (order_id,) in connection.execute(WAITING, [self._group, list(orders)])}

    def park(self, connection: psycopg.Connection, event: Parked, *, attempts: int, pause_s: float, why: str) -> None:
        """Begin to park an order, with its first event; not before `pause_s` is it tried again.

        Raises:
            Full: there is no room.
        """
        connection.execute(PARK, [self._group, event.order_id, attempts, pause_s, why])
        self.add(connection, [event])

    def add(self, connection: psycopg.Connection, events: Iterable[Parked]) -> None:
        """Park events behind others of their orders.

        Raises:
            Full: there is no room.
        """
        rows = [
            (self._group, one.order_id, one.event_id, one.letter.origin(), one.letter.key, one.letter.value)
            for one in events
        ]
        connection.cursor().executemany(ADD, rows)
        [(count,)] = connection.execute(COUNT, [self._group, self._limit + 1]).fetchall()
        if count > self._limit:
            raise Full(f"Parking of group {self._group!r}", f"it is full with {self._limit} events")

    def back(self, connection: psycopg.Connection, orders: Collection[str]) -> None:
        """Try orders again that were given up: their first events have come back."""
        connection.execute(BACK, [self._group, list(orders)])

    def hurry(self, connection: psycopg.Connection, order_id: str) -> None:
        """Have the order's first event tried now, though it was given up: it is known to be handled."""
        connection.execute(NEXT, [self._group, order_id])

    def due(self, connection: psycopg.Connection) -> Due | None:
        """An order that nobody else is at; it is ours until the transaction ends."""
        found = connection.execute(DUE, [self._group]).fetchone()
        return None if found is None else Due(*found)

    def head(self, connection: psycopg.Connection, order_id: str) -> Parked | None:
        """The order's first event, or nothing: then it can be freed."""
        found = connection.execute(HEAD, [self._group, order_id]).fetchone()
        if found is None:
            return None
        event_id, origin, key, value = found
        return Parked(order_id, event_id, Letter.from_origin(origin, key, value))

    def done(self, connection: psycopg.Connection, head: Parked) -> None:
        """Its first event was handled: the next is due."""
        connection.execute(REMOVE, [self._group, head.event_id])
        connection.execute(NEXT, [self._group, head.order_id])

    def again(self, connection: psycopg.Connection, due: Due, *, pause_s: float | None, why: str) -> None:
        """Its first event has failed once more; it is tried again in so many seconds, or not any more."""
        connection.execute(AGAIN, [due.attempts + 1, pause_s, why, self._group, due.order_id])

    def free(self, connection: psycopg.Connection, order_id: str) -> None:
        """Let the order flow if nothing of it is left; somebody who is adding to it this moment keeps it parked."""
        if connection.execute(LOCK, [self._group, order_id]).rowcount:
            connection.execute(FREE, [self._group, order_id])
