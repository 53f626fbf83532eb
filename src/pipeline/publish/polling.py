"""The polling relay: outbox rows to Kafka, at least once, per order in sequence.

One round: read the unpublished rows of our shards in id order, produce them, wait until *every* delivery report is in,
mark the rows that Kafka confirmed, each order's only up to its first failure. A crash after Kafka's confirmation and
before the mark sends those events again; nothing is marked that Kafka does not have. So: duplicates, never loss, and
readers keep an inbox.

Rows are found by `published_at is null`, not by a cursor on id: a row that commits late has a low id and would be
skipped for ever. No transaction is open while Kafka is waited for, so a slow broker holds back no vacuum. What is sent
is settled within half a lease (`message.timeout.ms`), whatever Kafka does, so nobody else has our shards by then.

Between rounds it sleeps until Postgres notifies it of new rows; where that is lost it looks by itself after a while.
Rows that were published a day ago (`OUTBOX_KEEP_S`) are removed, some after each round.

Marks may be lost when the *server* crashes (`synchronous_commit = off`), which costs a duplicate each; waiting for the
disk would cost more than anything else here.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from psycopg.rows import class_row

from pipeline.observe.process import done
from pipeline.publish.outbox import Removal, Row, is_proof, tell
from pipeline.publish.shards import NameTaken, Shards
from pipeline.route.topics import ORDERS, broker, full_name, is_fatal, producer_config, reason, require_topic
from pipeline.runtime import Database, Outage, Stop, Unavailable, begin
from pipeline.settings import RelaySettings, load

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

    import psycopg

    from pipeline.route.topics import Config

log = logging.getLogger(__name__)

ROOM_S = 0.05  # between looks whether the producer has room
PER_SHARD = 500  # rows of a round
# Where nobody has counted the rows, a bitmap looks cheap to the planner, which then reads a whole backlog each round.
SESSION = "set synchronous_commit = off; set enable_bitmapscan = off; listen outbox"

TAKE_OVER = """
    update outbox set published_at = now()
    where published_at is null and xid < (select max(below) from published_below)
"""
CLAIM = """
    select event_id::text, order_id, type, payload::text, traceparent, seq
    from relays join outbox_shards on owner = name
    cross join lateral (
        select * from outbox where shard = outbox_shards.shard and published_at is null order by id limit %s
    ) as unpublished
    where (name, token) = (%s, %s) and until > clock_timestamp()
    order by id
"""
MARK = """
    update outbox set published_at = now()
    from unnest(%s::text[], %s::integer[]) as proven (order_id, seq), outbox_shards join relays on owner = name
    where (outbox.order_id, outbox.seq) = (proven.order_id, proven.seq)
    and outbox_shards.shard = outbox.shard and (name, token) = (%s, %s)
"""
REMOVE = """
    delete from outbox where id in (
        select id from (select id, shard, published_at from outbox order by id limit %s) as oldest
        join outbox_shards using (shard) join relays on owner = name
        where published_at < now() - make_interval(secs => %s) and (name, token) = (%s, %s)
    )
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
        self._shards = Shards(settings)
        self._prepared: psycopg.Connection | None = None
        self._removal = Removal(REMOVE)

    def ready(self) -> None:
        """Raise `Unavailable` unless Postgres knows of us and the topic is there.

        What a relay that reads the log has published is marked first, as that one marks nothing.
        """
        with self._database.connection() as connection:
            connection.execute(TAKE_OVER)
            self._prepare(connection)
        require_topic(self._producer, self._settings, ORDERS)

    def publish(self) -> int:
        """One round. Returns how many rows were published.

        Raises:
            Unavailable: some could not be published.
            NameTaken: another process has started under this relay's name.
        """
        with self._database.connection() as connection:
            self._prepare(connection)
            list(connection.notifies(timeout=0))  # told of what we are about to see
            batch = self.claim(connection)
            if batch:
                reports = self.carry(connection, batch)
            self.remove(connection)
        if batch and reports.failure is not None:
            why = f"took {len(reports.delivered)} of {len(batch)} events: {reason(reports.failure)}"
            raise Unavailable(broker(self._settings), why)
        return len(batch)

    def wait(self, stop: Stop) -> None:
        """Return when there may be something to publish, or the process is asked to end."""
        with self._database.connection() as connection:
            if not list(connection.notifies(timeout=0)):
                stop.wait(min(self._settings.relay_interval_s, self._shards.rest_s), connection)

    def close(self) -> None:
        """Let other relays have our shards at once, if Postgres can be told."""
        with contextlib.suppress(Unavailable), self._database.connection() as connection:
            self._shards.leave(connection)

    def claim(self, connection: psycopg.Connection) -> list[Row]:
        """What is to be published next: of each of our shards the oldest, if our lease is good."""
        asked = [PER_SHARD, self._shards.name, self._shards.token]
        return connection.cursor(row_factory=class_row(Row)).execute(CLAIM, asked).fetchall()

    def carry(self, connection: psycopg.Connection, batch: list[Row]) -> Reports:
        """Send, wait for every report, mark what they prove. This order is the guarantee."""
        reports = self.send(batch)
        self.await_reports(reports)
        self.mark(connection, proven(batch, reports.delivered))
        return reports

    def send(self, batch: Iterable[Row]) -> Reports:
        """Hand the batch to the producer. What becomes of it is in the reports once they were awaited."""
        reports, refused = Reports(), set[str | bytes]()
        for row in batch:
            if row.order_id in refused:  # what comes behind what was not sent would overtake it
                continue

            def report(error: KafkaError | None, message: Message, event_id: str | bytes = row.event_id) -> None:
                if error is not None:
                    reports.failure = error
                elif self.is_proof(message):
                    reports.delivered.add(event_id)

            try:
                self._produce(row, report)
            except KafkaException as why:
                reports.failure = why.args[0]  # and no report will come
                refused.add(row.order_id)
        return reports

    def _produce(self, row: Row, report: Callable[[KafkaError | None, Message], None]) -> None:
        """Hand a row to the producer, and wait for room where there is none."""
        while True:
            try:
                return row.produce(self._producer, self._topic, report)
            except BufferError:
                self._producer.poll(ROOM_S)

    def await_reports(self, reports: Reports) -> None:
        """Return when Kafka has confirmed or refused everything that was sent, or message.timeout.ms has passed."""
        try:
            self._producer.flush()  # proves nothing by itself: the reports do
        except KafkaException as why:  # it will never work again
            reports.failure = why.args[0]
        if reports.failure is not None and is_fatal(reports.failure):
            self._producer = self._new_producer()  # this one will never send again

    def mark(self, connection: psycopg.Connection, rows: list[Row]) -> None:
        """Note that these rows were published. Has no effect where their shards are no longer ours."""
        if rows:
            order_ids, seqs = [row.order_id for row in rows], [row.seq for row in rows]
            connection.execute(MARK, [order_ids, seqs, self._shards.name, self._shards.token])
            done("events published", len(rows))
            tell(rows, "published")

    def remove(self, connection: psycopg.Connection) -> None:
        """Remove some of our shards' rows that were published long ago."""
        self._removal.some(connection, self._settings.outbox_keep_s, self._shards.name, self._shards.token)

    def config(self) -> Config:
        """What the producer is told."""
        return producer_config(self._settings) | {"message.timeout.ms": int(self._settings.relay_lease_s * 500)}

    def _prepare(self, connection: psycopg.Connection) -> None:
        if connection is not self._prepared:
            connection.execute(SESSION)
            self._prepared = connection
        self._shards.lead(connection)

    def _new_producer(self) -> Producer:
        return Producer(self.config())


def run(relay: type[Relay] = Relay) -> None:
    """Run a relay until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("relay")
    stop = Stop()
    settings = load(RelaySettings)
    outage = Outage("Events stay in the outbox; trying again")
    publisher = relay(settings, Database(settings.database_url))
    try:
        outage.until(stop, publisher.ready)
        while not stop.asked:
            try:
                if not publisher.publish():
                    publisher.wait(stop)
            except Unavailable as why:
                outage.wait(stop, why)
            else:
                outage.over()
    except NameTaken as why:
        log.error("%s", why)  # noqa: TRY400 - a mistake of the set-up, a traceback would accuse the code
        sys.exit(1)
    publisher.close()
