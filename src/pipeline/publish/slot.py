"""Makes the slot that the CDC relay reads, and makes a lost one anew: `python -m pipeline slot`.

A slot keeps all of the log since its confirmed place, so that a relay that is away misses nothing, and a disk fills.
With `max_slot_wal_keep_size` there is an end to that: at a checkpoint behind the limit, Postgres gives the slot up, and
goes on. Nothing is lost then, as the events are rows of the outbox; but nothing is sent either, and no new slot brings
what is older than itself. So in this order:

1. a new slot, temporary and under a name of its own, with the snapshot of its beginning;
2. in that snapshot, every row that is not known to be published goes to Kafka, each order's in sequence;
3. the lost slot is dropped, and a copy of the new one takes its name: what was committed since the snapshot, it brings.

A crash in between leaves things as they were, but for rows that come once more. The other way round, rows that commit
between the last look and the new slot would be nobody's.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka import KafkaException, Producer
from psycopg import sql
from psycopg.rows import class_row

from pipeline.publish.outbox import Row, is_proof
from pipeline.publish.watch import state
from pipeline.route.topics import ORDERS, broker, full_name, producer_config, reason, require_topic
from pipeline.runtime import Unavailable, address, begin, first_line
from pipeline.settings import CdcSettings, load

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

log = logging.getLogger(__name__)

BATCH = 5_000

NEW = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput (SNAPSHOT 'export')")
UNPUBLISHED = """
    select event_id::text, order_id, type, payload::text, traceparent, seq from outbox
    where published_at is null and xid >= coalesce((select below from published_below where slot = %s), '0') order by id
"""
RENAME = """
    select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %(slot)s;
    select pg_copy_logical_replication_slot(%(made)s, %(slot)s, false);
    insert into relay_progress (slot, below) values (%(slot)s, %(below)s::xid8)
    on conflict (slot) do update set below = excluded.below, server = excluded.server, at = now()
"""


class SlotIsWell(Exception):
    """There is no need to make it: nobody's place in the log is thrown away."""


def make(settings: CdcSettings) -> int:
    """Make the slot, or a lost one anew, and publish what it will not bring. Returns how many rows that were.

    Raises:
        Unavailable: a server did not do its part; nothing has changed but that some rows may be on the topic.
        SlotIsWell: it is there, and not lost.
    """
    name = f"Postgres at {address(settings.database_url)}"
    made = f"{settings.slot}_new"
    try:
        with (
            psycopg.connect(settings.database_url, autocommit=True, connect_timeout=3) as connection,
            psycopg.connect(
                settings.database_url, autocommit=True, connect_timeout=3, replication="database"
            ) as replication,
        ):
            found = state(connection, settings.slot)
            if found is not None and not found.lost:
                raise SlotIsWell(f"slot {settings.slot!r} is there and well ({found.wal_status})")
            [[_, _, snapshot, _]] = replication.execute(NEW.format(sql.Identifier(made))).fetchall()
            rows, below = backfill(settings, snapshot)
            asked = {"slot": settings.slot, "made": made, "below": below}
            with psycopg.ClientCursor(connection) as cursor:
                cursor.execute(RENAME, asked)
    except psycopg.Error as why:
        raise Unavailable(name, first_line(why)) from why
    return rows


def backfill(settings: CdcSettings, snapshot: str) -> tuple[int, str]:
    """Publish what is in the outbox as of a snapshot, and how many rows that were; transactions older than so are."""
    producer = Producer(producer_config(settings))
    require_topic(producer, settings, ORDERS)
    count = 0
    with psycopg.connect(settings.database_url, connect_timeout=3) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(snapshot)))
        [[below]] = connection.execute("select pg_snapshot_xmin(pg_current_snapshot())::text").fetchall()
        with connection.cursor("unpublished", row_factory=class_row(Row)) as cursor:
            cursor.execute(UNPUBLISHED, [settings.slot])
            while rows := cursor.fetchmany(BATCH):
                publish(producer, settings, rows)
                count += len(rows)
    return count, below


def publish(producer: Producer, settings: CdcSettings, rows: list[Row]) -> None:
    """Put rows on the topic, and return when Kafka has confirmed all of them.

    Raises:
        Unavailable: it has not.
    """
    proven, failure = 0, "some reports did not come"

    def report(error: KafkaError | None, message: Message) -> None:
        nonlocal proven, failure
        if error is None and is_proof(message):
            proven += 1
        elif error is not None:
            failure = reason(error)

    try:
        for row in rows:
            row.produce(producer, full_name(settings, ORDERS), report)
    except KafkaException as why:  # what comes behind it would overtake it
        failure = reason(why.args[0])
    producer.flush()
    if proven < len(rows):
        raise Unavailable(broker(settings), f"took {proven} of {len(rows)} events: {failure}")


def main() -> None:
    """Make the slot."""
    begin("slot", exposing=False)
    settings = load(CdcSettings)
    try:
        rows = make(settings)
    except (Unavailable, SlotIsWell) as why:
        log.error("%s", why)  # noqa: TRY400 - says what to do, a traceback would not
        sys.exit(1)
    log.info("Slot %r is made; %d rows that it will not bring are on the topic.", settings.slot, rows)
