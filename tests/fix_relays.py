"""The outbox, one or two relays and the topic: whether all events come, and each order's in sequence."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING
from uuid import uuid4

from chaos import System, Worker, group_drained, no_rows, order_per_key
from chaos.errors import NotInTime
from chaos.invariants import Invariant, Violation
from chaos.waiting import Deadline, wait_until
from pipeline.publish import relay as relays
from tests.fix_pipeline import SCHEMA
from tests.fix_slot import outbox_slot, slot_confirmed
from tests.twins import topic_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chaos import Run, Session
    from chaos.invariants import Ledger

EVENTS = 3  # of each order
PATIENCE_S = 2.0

ORDER = "insert into orders values (%s, 'c-1', 'sku-1', 1, 1999, 'EUR')"
ID = "select nextval(pg_get_serial_sequence('outbox', 'id'))"
SOME = """
    insert into outbox (id, event_id, order_id, seq, type, payload) overriding system value
    select id, (payload ->> 'event_id')::uuid, payload ->> 'order_id', (payload ->> 'seq')::int, 'changed', payload
    from unnest(%s::bigint[], %s::json[]) as event (id, payload)
    returning pg_current_wal_insert_lsn()::text
"""
IN_HAND = "select 1 from outbox where id = %s and xmax <> 0"  # locked, or about to be removed
BEHIND = "select 1 from pg_replication_slots where slot_name = %s and confirmed_flush_lsn <= %s"  # if there is one


def event(order_id: str, seq: int) -> str:
    """A new event."""
    return json.dumps({"event_id": str(uuid4()), "order_id": order_id, "seq": seq})


def write_events(run: Run, topic: Ledger) -> None:
    """Write three events of each of three orders, by several transactions.

    The second is committed while a relay has the first in its hands. The third order commits late: the id of its first
    event was allotted before those that are on the topic by then.

    Where the slot carries them, the next are committed when those before are confirmed: a confirmation is about no key
    and has no name but its number, which would be another one where two transactions are confirmed together.
    """
    late, *ids = (run.execute(ID)[0][0] for _ in range(3 * EVENTS))
    first, second, third = run.new_key(), run.new_key(), run.new_key()
    for order_id in (first, second, third):
        run.execute(ORDER, order_id)
        run.accept(order_id)

    def insert(*events: tuple[int, str, int]) -> str:
        written = run.execute(
            SOME, [number for number, _, _ in events], [event(order, seq) for _, order, seq in events]
        )
        return str(written[-1][0])  # a place in the log, before the end of the commit

    def published(order_id: str, count: int) -> bool:
        return sum(record.effect for record in topic.of(order_id)) >= count

    def taken() -> bool:
        return published(first, 1) or bool(run.execute(IN_HAND, ids[0]))

    def behind(place: str) -> bool:
        return bool(run.execute(BEHIND, run.lane.name, place))

    def see(what: str, condition: Callable[[], bool], place: str) -> None:
        with contextlib.suppress(NotInTime):  # what is lost does not come; that is for others to judge
            wait_until(what, lambda: condition() and not behind(place), Deadline(PATIENCE_S), every=0.002)

    place = insert((ids[0], first, 1))
    see("the first event taken", taken, place)
    place = insert((ids[1], first, 2))
    see("two events on the topic", partial(published, first, 2), place)
    place = insert((ids[2], first, 3), (ids[3], second, 1), (ids[4], second, 2))
    see("five events on the topic", lambda: published(first, 3) and published(second, 2), place)
    insert((late, third, 1), (ids[5], second, 3), (ids[6], third, 2), (ids[7], third, 3))


def all_events(topic: Ledger) -> Invariant:
    """Every event of an order is on the topic."""

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for key in keys:
            there = {record.field("seq") for record in topic.of(key)}
            if missing := set(range(1, EVENTS + 1)) - there:
                detail = f"has no event {', '.join(map(str, sorted(missing)))} on the topic"
                found.append(Violation("all events", key, detail, tuple(topic.of(key))))
        return found

    return Invariant("all events", check, topic, final=False)


@contextlib.contextmanager
def relayed(
    session: Session,
    relay: Callable[[], object] = relays.main,
    *,
    replicas: int = 1,
    from_log: bool = False,
    once: bool = False,
    workload: Callable[..., object] = write_events,
    whole: bool = True,
    grace: float = 1.0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[System]:
    """So many processes of a relay, or of a twin of it, in a lane of their own; the topic is judged.

    Args:
        session: the test run.
        relay: publishes what is in the outbox.
        replicas: of it.
        from_log: whether it is one that reads the log: there is a slot for it.
        once: whether each event may be on the topic only once; else what comes again has no effect, as with an inbox.
        workload: what is done in each drill, given the topic's ledger; three events of each key that it accepts.
        whole: whether everything has to be published before the topic is judged. One that forgets rows never has.
        grace: as for `System`.
        env: more for the relays.
    """
    with (
        session.lane(schema=SCHEMA, topics={"orders": 1}) as lane,
        outbox_slot(lane) if from_log else contextlib.nullcontext(),
    ):
        told = {"TOPIC": "{topics[orders]}", "GROUP": "{lane}.topic", **({} if once else {"COPIES": "no effect"})}
        topic = lane.trusted("topic", topic_ledger.main, ledger="topic.jsonl", key="order_id", env=told)
        own = {
            "NAMESPACE": "{lane}",
            "RELAY_NAME": "relay-{replica}",
            "SLOT": "{lane}",
            "RELAY": "cdc" if from_log else "polling",
        }
        published = slot_confirmed() if from_log else no_rows("outbox_pending")
        with System(
            lane,
            workers=[Worker("relay", relay, replicas, env={**own, **env})],
            workload=partial(workload, topic=topic.ledger),
            settled=[*([published] if whole else []), group_drained("{lane}.topic", "orders")],
            invariants=[all_events(topic.ledger), order_per_key(topic.ledger, sequence="seq")],
            grace=grace,
        ) as system:
            yield system
