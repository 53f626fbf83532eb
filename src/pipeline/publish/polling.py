"""The polling relay: outbox rows to Kafka, at least once, per order in sequence.

One round: read unpublished rows in id order, produce them, wait until *every* delivery report is in, mark the rows that
Kafka confirmed, each order's only up to its first failure. A crash after Kafka's confirmation and before the mark sends
those events again; nothing is marked that Kafka does not have. So: duplicates, never loss, and readers keep an inbox.

Rows are found by `published_at is null`, not by a cursor on id: a row that commits late has a low id and would be
skipped for ever. No transaction is open while Kafka is waited for, so a slow broker holds back no vacuum.

One relay owns the outbox, by a session advisory lock that ends with its connection; a second one waits and says so. Two
relays side by side would let the second event of an order overtake the first. Sharding by order comes later.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from psycopg.rows import class_row

from chaos.checkpoint import checkpoint
from pipeline.route.topics import ORDERS, broker, full_name, is_fatal, producer_config, reason, require_topic
from pipeline.runtime import Database, Outage, Stop, Unavailable, log_to_stderr
from pipeline.settings import RelaySettings, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from uuid import UUID

    import psycopg

log = logging.getLogger(__name__)

BATCH = 500
OWNER_LOCK = 7_263_001  # any number, as long as nothing else in this database uses it

CLAIM = """
    select id, event_id, order_id, seq, type, payload from outbox
    where published_at is null order by id limit %s
"""
MARK = """
    update outbox set published_at = now()
    from unnest(%s::text[], %s::integer[]) as proven (order_id, seq)
    where (outbox.order_id, outbox.seq) = (proven.order_id, proven.seq)
"""


class Row(NamedTuple):
    """An outbox row that was not yet marked as published."""

    id: int
    event_id: UUID
    order_id: str
    seq: int
    type: str
    payload: dict[str, object]

    def value(self) -> bytes:
        """The event as it appears on the topic."""
        envelope = {"event_id": str(self.event_id), "type": self.type, "order_id": self.order_id, "seq": self.seq}
        return json.dumps(self.payload | envelope, separators=(",", ":")).encode()


def proven(batch: Iterable[Row], delivered: Collection[int]) -> list[Row]:
    """The rows to mark, given the ids that Kafka confirmed: of each order those before its first unconfirmed one.

    A later event of the order may be on the topic already. It is sent again after the missing one, so that the last
    word about an order is in sequence.
    """
    stuck: set[str] = set()
    rows = []
    for row in batch:
        if row.id not in delivered:
            stuck.add(row.order_id)
        if row.order_id not in stuck:
            rows.append(row)
    return rows


class Relay:
    """Carries the outbox to one topic. Safe to abandon at any line."""

    def __init__(self, settings: RelaySettings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._topic = full_name(settings, ORDERS)
        self._producer = self._new_producer()
        self._owned: psycopg.Connection | None = None

    def ready(self) -> None:
        """Raise `Unavailable` unless this relay owns the outbox and the topic is there."""
        with self._database.connection() as connection:
            self._own(connection)
        require_topic(self._producer, self._settings, self._topic)

    def publish(self) -> int:
        """One round. Returns how many rows were published; raises `Unavailable` if some could not be."""
        with self._database.connection() as connection:
            self._own(connection)
            batch = connection.cursor(row_factory=class_row(Row)).execute(CLAIM, [BATCH]).fetchall()
            if not batch:
                return 0
            checkpoint("relay.claimed")
            delivered, failure = self._produce(batch)
            checkpoint("relay.produced")
            rows = proven(batch, delivered)
            if rows:
                connection.execute(MARK, [[row.order_id for row in rows], [row.seq for row in rows]])
                checkpoint("relay.marked")
        if failure is not None:
            why = f"took {len(delivered)} of {len(batch)} events: {reason(failure)}"
            raise Unavailable(broker(self._settings), why)
        return len(rows)

    def _own(self, connection: psycopg.Connection) -> None:
        # The lock lives and dies with its session, so each new connection has to win it anew.
        if connection is self._owned:
            return
        won = connection.execute("select pg_try_advisory_lock(%s)", [OWNER_LOCK]).fetchone()
        if won != (True,):
            outbox = "The outbox"
            raise Unavailable(outbox, "another relay owns it")
        self._owned = connection

    def _produce(self, batch: Iterable[Row]) -> tuple[set[int], KafkaError | None]:
        """Send and wait for every report. Returns the ids that Kafka confirmed, and why the others failed."""
        delivered: set[int] = set()
        failure: KafkaError | None = None

        for row in batch:

            def report(error: KafkaError | None, _: Message, id_: int = row.id) -> None:
                nonlocal failure
                if error is None:
                    delivered.add(id_)
                else:
                    failure = error

            headers: list[tuple[str, str | bytes | None]] = [("event_id", str(row.event_id)), ("type", row.type)]
            try:
                self._producer.produce(self._topic, row.value(), row.order_id, headers=headers, on_delivery=report)
            except KafkaException as refused:
                failure = refused.args[0]  # and no report will come
        self._producer.flush()  # ends within message.timeout.ms, and proves nothing by itself: the reports do
        if failure is not None and is_fatal(failure):
            self._producer = self._new_producer()  # this one will never send again
        return delivered, failure

    def _new_producer(self) -> Producer:
        return Producer(producer_config(self._settings))


def main() -> None:
    """Run the relay until SIGTERM."""
    log_to_stderr("relay")
    stop = Stop()
    settings = load(RelaySettings)
    outage = Outage("Events stay in the outbox; trying again")
    relay = Relay(settings, Database(settings.database_url))
    outage.until(stop, relay.ready)
    while not stop.asked:
        try:
            published = relay.publish()
        except Unavailable as why:
            outage.wait(stop, why)
        else:
            outage.over()
            if not published:
                stop.wait(settings.relay_interval_s)
