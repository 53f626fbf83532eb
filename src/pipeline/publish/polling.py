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

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from psycopg.rows import class_row

from pipeline.publish.outbox import Row, is_proof
from pipeline.route.topics import ORDERS, broker, full_name, is_fatal, producer_config, reason, require_topic
from pipeline.runtime import Database, Outage, Stop, Unavailable, log_to_stderr
from pipeline.settings import RelaySettings, load

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    import psycopg

    from pipeline.route.topics import Config

log = logging.getLogger(__name__)

BATCH = 1_000
OWNER_LOCK = 7_263_001  # any number, as long as nothing else in this database uses it

CLAIM = """
    select event_id::text, order_id, type, payload::text, traceparent, seq from outbox
    where published_at is null order by id limit %s
"""
MARK = """
    update outbox set published_at = now()
    from unnest(%s::text[], %s::integer[]) as proven (order_id, seq)
    where (outbox.order_id, outbox.seq) = (proven.order_id, proven.seq)
"""


def proven(batch: Iterable[Row], delivered: Collection[str | bytes]) -> list[Row]:
    """The rows to mark, given the events that Kafka confirmed: of each order those before its first unconfirmed one.

    A later event of the order may be on the topic already. It is sent again after the missing one, so that the last
    word about an order is in sequence.
    """
    stuck: set[str | bytes] = set()
    rows = []
    for row in batch:
        if row.event_id not in delivered:
            stuck.add(row.order_id)
        if row.order_id not in stuck:
            rows.append(row)
    return rows


@dataclass
class Reports:
    """What Kafka said about a batch: the events that it has given an offset, and why others failed."""

    delivered: set[str | bytes] = field(default_factory=set)
    failure: KafkaError | None = None


class Relay:
    """Carries the outbox to one topic. Safe to abandon at any line."""

    is_proof = staticmethod(is_proof)

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
        require_topic(self._producer, self._settings, ORDERS)

    def publish(self) -> int:
        """One round. Returns how many rows were published; raises `Unavailable` if some could not be."""
        with self._database.connection() as connection:
            self._own(connection)
            batch = connection.cursor(row_factory=class_row(Row)).execute(CLAIM, [BATCH]).fetchall()
            if not batch:
                return 0
            reports = self.carry(connection, batch)
        if reports.failure is not None:
            why = f"took {len(reports.delivered)} of {len(batch)} events: {reason(reports.failure)}"
            raise Unavailable(broker(self._settings), why)
        return len(batch)

    def carry(self, connection: psycopg.Connection, batch: list[Row]) -> Reports:
        """Send, wait for every report, mark what they prove. This order is the guarantee."""
        reports = self.send(batch)
        self.await_reports(reports)
        self.mark(connection, proven(batch, reports.delivered))
        return reports

    def send(self, batch: Iterable[Row]) -> Reports:
        """Hand the batch to the producer. What becomes of it is in the reports once they were awaited."""
        reports = Reports()
        for row in batch:

            def report(error: KafkaError | None, message: Message, event_id: str | bytes = row.event_id) -> None:
                if error is not None:
                    reports.failure = error
                elif self.is_proof(message):
                    reports.delivered.add(event_id)

            try:
                row.produce(self._producer, self._topic, report)
            except KafkaException as refused:
                reports.failure = refused.args[0]  # and no report will come
        return reports

    def await_reports(self, reports: Reports) -> None:
        """Return when Kafka has confirmed or refused everything that was sent, or message.timeout.ms has passed."""
        self._producer.flush()  # proves nothing by itself: the reports do
        if reports.failure is not None and is_fatal(reports.failure):
            self._producer = self._new_producer()  # this one will never send again

    def mark(self, connection: psycopg.Connection, rows: list[Row]) -> None:
        """Note, durably, that these rows were published."""
        if rows:
            connection.execute(MARK, [[row.order_id for row in rows], [row.seq for row in rows]])

    def config(self) -> Config:
        """What the producer is told."""
        return producer_config(self._settings)

    def _own(self, connection: psycopg.Connection) -> None:
        # The lock lives and dies with its session, so each new connection has to win it anew.
        if connection is self._owned:
            return
        won = connection.execute("select pg_try_advisory_lock(%s)", [OWNER_LOCK]).fetchone()
        if won != (True,):
            outbox = "The outbox"
            raise Unavailable(outbox, "another relay owns it")
        self._owned = connection

    def _new_producer(self) -> Producer:
        return Producer(self.config())


def run(relay: type[Relay] = Relay) -> None:
    """Run a relay until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    log_to_stderr("relay")
    stop = Stop()
    settings = load(RelaySettings)
    outage = Outage("Events stay in the outbox; trying again")
    publisher = relay(settings, Database(settings.database_url))
    outage.until(stop, publisher.ready)
    while not stop.asked:
        try:
            published = publisher.publish()
        except Unavailable as why:
            outage.wait(stop, why)
        else:
            outage.over()
            if not published:
                stop.wait(settings.relay_interval_s)


def main() -> None:
    """Run the relay until SIGTERM."""
    run()
