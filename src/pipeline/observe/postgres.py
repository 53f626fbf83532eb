"""What Postgres knows: orders, outbox, slots, parking, and whoever keeps a transaction open.

A query that fails, or takes too long, takes no other's gauges away. Each has half of the time that is left, so that
there is some for those behind it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg

from pipeline.observe.gauges import GROUPS
from pipeline.route.topics import full_name
from pipeline.runtime import Unavailable, address, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    from pipeline.settings import ObserveSettings

READ_ONLY = "-c default_transaction_read_only=on"
PATIENCE_S = 1.4  # for all of it; the exporter waits little longer
PATIENCE = "select set_config('statement_timeout', %s, false)"

# Each row is a gauge, its labels, and its value.
PENDING = """
    select 'pending_orders', null, null, count(*)::float8
    from (select from orders where state = 'pending' limit 10000) as few
    union all
    select 'pending_oldest_seconds', null, null, coalesce(extract(epoch from now() - min(created_at)), 0)::float8
    from orders where state = 'pending'
"""
# By an index alone (`outbox_outcomes`). A join would read all orders there ever were, where statistics say "many".
LATENCY = """
    select 'order_latency_seconds', quantile::text, null, value::float8 from (
        select percentile_disc(array[0.5, 0.95, 1]) within group (order by extract(epoch from created_at - (
            select created_at from orders where orders.order_id = ended.order_id
        )))
        from outbox as ended
        where created_at > now() - interval '1 minute' and type in ('order.confirmed', 'order.failed')
    ) as found (values), unnest(array[0.5, 0.95, 1], values) as told (quantile, value) where value is not null
"""
TRANSACTIONS = """
    select 'oldest_transaction_seconds', null, null, coalesce(extract(epoch from now() - min(began)), 0)::float8 from (
        select xact_start from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()
        union all select prepared from pg_prepared_xacts
    ) as transactions (began)
"""
UNPUBLISHED = """
    with before as (select coalesce(max(below), '0') as below from published_below)  -- by a relay that read the log
    select 'unpublished_events', null, null, count(*)::float8
    from (select from outbox_pending where xid >= (select below from before) limit 10000) as few
    union all
    select 'unpublished_oldest_seconds', null, null, coalesce(extract(epoch from now() - min(created_at)), 0)::float8
    from generate_series(0, 15) as s, lateral (
        select created_at from outbox
        where shard = s and published_at is null and xid >= (select below from before) order by id limit 1
    ) as first
"""
UNREAD = """
    with at as (
        select max(below) as below, max(at) as at from relay_progress join published_below using (slot, below)
        where slot in (select slot_name from pg_replication_slots)
    )
    select 'unpublished_events', null, null, count(*)::float8
    from at, lateral (select xid from outbox order by id desc limit 10000) as latest where xid >= below
    union all
    select 'unpublished_oldest_seconds', null, null, extract(epoch from now() - at)::float8 from at
"""
SLOTS = """
    select told.name, slot_name, told.label, told.value::float8 from pg_replication_slots, lateral (values
        ('slot_retained_bytes', null, pg_current_wal_lsn() - restart_lsn),
        ('slot_safe_bytes', null, safe_wal_size),
        ('slot_left_ratio', null, safe_wal_size / nullif(safe_wal_size + (pg_current_wal_lsn() - restart_lsn), 0)),
        ('slot_active', null, active::int),
        ('slot_status', 'reserved', (wal_status = 'reserved')::int),
        ('slot_status', 'extended', (wal_status = 'extended')::int),
        ('slot_status', 'unreserved', (wal_status = 'unreserved')::int),
        ('slot_status', 'lost', (wal_status = 'lost')::int)
    ) as told (name, label, value) where database = current_database() and told.value is not null
"""
# Of each group, so that a gauge which is not there says that nobody knows, and never that it is 0.
PARKED = """
    with groups as (select * from unnest(%(groups)s::text[], %(names)s::text[]) as one (told, consumer_group)),
    fates as (
        select told, fate, since from groups cross join (values ('given up'), ('tried again')) as all_fates (fate)
        left join parked_orders as one on one.consumer_group = groups.consumer_group
            and fate = case when next_attempt_at is null then 'given up' else 'tried again' end
    )
    select 'parked_orders', told, fate, count(since)::float8 from fates group by told, fate
    union all
    select 'parked_oldest_seconds', told, fate, coalesce(extract(epoch from now() - min(since)), 0)::float8
    from fates group by told, fate
    union all
    select 'parked_events', told, null, (
        select count(*) from parked_events as one where one.consumer_group = groups.consumer_group
    )::float8 from groups
"""
HOW = "select exists (select from published_below where slot in (select slot_name from pg_replication_slots))"
SEES_ALL = "select current_user, pg_has_role('pg_read_all_stats', 'usage')"

Reading = tuple[str, tuple[str, ...], float]


def readings(settings: ObserveSettings) -> Iterator[Reading]:
    """Name, labels and value of each gauge, as they are now.

    Raises:
        Unavailable: Postgres does not answer, or not all, or not in time. What it has answered is told before.
    """
    url = settings.database_url
    deadline = time.monotonic() + PATIENCE_S
    asked = {"groups": list(GROUPS), "names": [full_name(settings, group) for group in GROUPS]}
    failed: list[Exception] = []
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=2, options=READ_ONLY) as connection:
            for question in (PENDING, _transactions, _unpublished, SLOTS, PARKED, LATENCY):
                try:
                    half_ms = max(1, round(500 * (deadline - time.monotonic())))
                    connection.execute(PATIENCE, [str(half_ms)])
                    query = question(connection) if callable(question) else question
                    rows = connection.execute(query, asked).fetchall()
                except (psycopg.Error, PermissionError) as why:
                    if connection.broken:
                        raise
                    failed.append(why)
                    continue
                for name, *labels, value in rows:
                    yield name, tuple(label for label in labels if label is not None), value
        if failed:
            raise failed[0]
    except (psycopg.Error, PermissionError) as why:
        raise Unavailable(f"Postgres at {address(url)}", first_line(why)) from why


def _unpublished(connection: psycopg.Connection) -> LiteralString:
    [(by_slot,)] = connection.execute(HOW).fetchall()
    return UNREAD if by_slot else UNPUBLISHED


def _transactions(connection: psycopg.Connection) -> LiteralString:
    """Who may not see others' sessions would find none of them open."""
    [(user, may)] = connection.execute(SEES_ALL).fetchall()
    if not may:
        raise PermissionError(f"it hides others' transactions: run grant pg_monitor to {user}")
    return TRANSACTIONS
