"""The CDC relay: outbox rows from the write-ahead log to Kafka, at least once, in the order of their commits.

It reads a logical slot (`pipeline.publish.replication`). Rows are produced as they are received, before their
transaction's end is: version 1 of the protocol sends only what was committed. A transaction's end is confirmed once
Kafka has given an offset to each of its rows and of all before it, so a crash sends again what was not confirmed, and
nothing is confirmed that Kafka does not have. So: duplicates, never loss, and readers keep an inbox.

What is confirmed is the end of a commit, never a place within a transaction. Where nothing is under way, it is what the
walsender says it has come to, or a quiet outbox would keep the log of a busy database for ever.

Heartbeats (`pipeline.publish.heartbeat`) say what of the outbox is published, and can be removed.

Nothing here waits for Kafka without telling Postgres meanwhile that we are there. When Kafka has no room, no more is
read, and the walsender waits: memory has a limit.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import deque
from dataclasses import dataclass
from itertools import chain, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer

from pipeline.observe.process import done
from pipeline.publish.heartbeat import Heartbeat
from pipeline.publish.outbox import Row, is_proof, tell
from pipeline.publish.pgoutput import Begin, Commit, Decoder, Insert, Message, Relation, Undecodable
from pipeline.publish.replication import Keepalive, Stream
from pipeline.route.topics import ORDERS, broker, full_name, is_fatal, producer_config, reason, require_topic
from pipeline.runtime import Database, Outage, Stop, Unavailable, begin
from pipeline.settings import CdcSettings, load

if TYPE_CHECKING:
    from collections.abc import Callable

    import confluent_kafka

    from pipeline.route.topics import Config

    Report = Callable[[KafkaError | None, confluent_kafka.Message], None]

log = logging.getLogger(__name__)

TABLE = "outbox"
COLUMNS = Row._fields[:5]
AT_ONCE, BYTES_AT_ONCE = 2_000, 16 * 1024**2  # so many frames are read, or so much, before rows are produced
REPORT_S = 1.0  # how long the walsender goes without a word, at most
QUIET_S, BUSY_S = 0.25, 0.002  # how long one look waits for the slot: with nothing under way, and with something


@dataclass
class Transaction:
    """So many of its rows are not proven to be on the topic; `end_lsn` is 0 until its end was received."""

    unproven: int = 0
    end_lsn: int = 0


class Progress:
    """What may be confirmed: the end of the last transaction of which, and before which, everything is proven."""

    def __init__(self) -> None:
        self.confirmed = 0
        self._under_way: deque[Transaction] = deque()

    def begin(self) -> Transaction:
        """A transaction begins; they come one after the other."""
        self._under_way.append(Transaction())
        return self._under_way[-1]

    def advance(self) -> int:
        """The place that may be confirmed by now."""
        while self._under_way and self._under_way[0].end_lsn and not self._under_way[0].unproven:
            self.confirmed = self._under_way.popleft().end_lsn
        return self.confirmed

    def nothing_before(self, lsn: int) -> None:
        """The walsender has come to this place: everything that was committed before it was received."""
        if not self._under_way:
            self.confirmed = max(self.confirmed, lsn)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way

    @property
    def within(self) -> bool:
        """Whether the end of a transaction has yet to be received."""
        return bool(self._under_way) and not self._under_way[-1].end_lsn


class CdcRelay:
    """Carries the outbox to one topic. Safe to abandon at any line."""

    is_proof = staticmethod(is_proof)
    together_s = 0.0  # how long a look waits for the end of a transaction that has begun; a busy relay has better to do

    def __init__(self, settings: CdcSettings) -> None:
        self._settings = settings
        self._topic = full_name(settings, ORDERS)
        self.producer = self._new_producer()
        self._stream: Stream | None = None
        self.due = 0.0  # of the next word to the walsender
        self._heartbeat = Heartbeat(settings, Database(settings.database_url))
        self._begin_anew()

    def ready(self) -> None:
        """Raise `Unavailable` unless the slot is ours and the topic is there."""
        require_topic(self.producer, self._settings, ORDERS)
        self.close()
        told = self._settings
        self._stream = Stream(told.database_url, told.slot, told.publication, told.relay_lease_s)
        self._begin_anew()

    def carry(self) -> None:
        """Look at the slot once: produce what has come, confirm what is proven.

        Raises:
            Unavailable: Postgres or Kafka did not do its part. `restart` then; what was not confirmed comes again.
            Undecodable: the slot says what we do not understand.
        """
        if self._stream is None:
            self.ready()
        more = self.look()
        self.deliver()
        if not (more or self.progress.idle):
            self.poll(BUSY_S, at_once=True)
        self._confirm()
        self._heartbeat.beat(self.progress.confirmed)

    def look(self) -> bool:
        """Read what has come, and no more than we have room for. Returns whether there may be more."""
        stream, size, rest = self._reading, 0, 0.0
        for wait_s in chain([QUIET_S if self.progress.idle else BUSY_S], repeat(0.0, AT_ONCE - 1)):
            frame = stream.receive(wait_s)
            if frame is None and self.together_s and self.progress.within:
                rest = rest or time.monotonic() + self.together_s
                frame = stream.receive(max(0.0, rest - time.monotonic()))
            if frame is None:
                return False
            if isinstance(frame, Keepalive):
                self.progress.nothing_before(frame.end_lsn)
                if frame.wants_reply:
                    self.due = 0.0
            else:
                self._take(frame.message)
                size += len(frame.message)
                if size > BYTES_AT_ONCE:
                    break
        return True

    def deliver(self) -> None:
        """Hand what was read to the producer."""
        for row, report in self.taken:
            self._send(row, report)
        self.taken.clear()

    def restart(self) -> None:
        """Give the slot up, and wait for what Kafka was sent: none of it may arrive behind what will be sent again.

        What was not sent yet is dropped: behind something that failed it would arrive first.
        """
        self.close()
        self.producer.purge(in_flight=False)
        self.producer.flush()
        if self._fatal:
            self.producer = self._new_producer()

    def close(self) -> None:
        """Leave the slot to others."""
        self._heartbeat.close()
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def proven(self, stream: Stream) -> int:  # noqa: ARG002 - what a seeded bug believes
        """The place before which everything is on the topic."""
        return self.progress.advance()

    def config(self) -> Config:
        """What the producer is told."""
        return producer_config(self._settings) | {
            "linger.ms": 5,  # while more is coming; when nothing is, what there is is sent at once
            "queue.buffering.max.messages": 50_000,
            "queue.buffering.max.kbytes": 65_536,
        }

    @property
    def _reading(self) -> Stream:
        if self._stream is None:
            raise Unavailable(f"Slot {self._settings.slot!r}", "it was given up")
        return self._stream

    def _begin_anew(self) -> None:
        self.progress = Progress()
        self._decoder = Decoder()
        self.taken: list[tuple[Row, Report]] = []
        self._transaction, self.commit_lsn = Transaction(), 0
        self._report = self._reporting(self._transaction)
        self._table = 0
        self._columns: Callable[[tuple[bytes | None, ...]], tuple[Any, ...]] = itemgetter(0, 0)  # until it is described
        self._failure, self._fatal = "", False
        self.due = 0.0
        self._heartbeat.begin_anew()

    def _take(self, message: bytes) -> None:
        change = self._decoder.decode(message)
        if isinstance(change, Insert):
            if change.relation.id == self._table:
                self.inserted(change)
        elif isinstance(change, Begin):
            self.began(change)
        elif isinstance(change, Relation):
            if change.name == TABLE:
                names = [column.name for column in change.columns]
                self._table, self._columns = change.id, itemgetter(*map(names.index, COLUMNS))
        elif isinstance(change, Commit):
            self.committed(change)
        elif isinstance(change, Message):
            self._heartbeat.heard(change, self.commit_lsn)

    def began(self, begin: Begin) -> None:
        """A transaction begins; all of it is there."""
        self.commit_lsn = begin.lsn
        self._transaction = self.progress.begin()
        self._report = self._reporting(self._transaction)

    def inserted(self, row: Insert) -> None:
        """A row of the outbox."""
        self._transaction.unproven += 1
        self.taken.append((Row(*self._columns(row.values)), self._report))

    def committed(self, commit: Commit) -> None:
        """The end of the transaction."""
        self._transaction.end_lsn = commit.end_lsn

    def _send(self, row: Row, report: Report) -> None:
        """Hand a row to the producer; when it has no room, wait for some."""
        while True:
            try:
                row.produce(self.producer, self._topic, report)
            except BufferError:
                self.poll(BUSY_S)
                self._confirm()
            except KafkaException as refused:  # what comes behind it would overtake it
                self._failed(refused.args[0])
                self._confirm()
            else:
                return tell([row], "sent")

    def _reporting(self, transaction: Transaction) -> Report:
        def report(error: KafkaError | None, message: confluent_kafka.Message) -> None:
            if error is not None:
                self._failed(error)
            elif self.is_proof(message):
                transaction.unproven -= 1
                done("events published")
            else:
                self._failure = "a delivery was concluded from the next one, and not confirmed"

        return report

    def poll(self, seconds: float, *, at_once: bool = False) -> None:
        """Hear what Kafka has answered; `at_once`: send what would wait for company, and hear that it was answered.

        A producer that will never work again says so by an exception of its own.
        """
        try:
            (self.producer.flush if at_once else self.producer.poll)(seconds)
        except KafkaException as why:
            self._failed(why.args[0])

    def _failed(self, error: KafkaError) -> None:
        self._failure, self._fatal = reason(error), self._fatal or is_fatal(error)

    def _confirm(self) -> None:
        """Look at the delivery reports, and tell Postgres what they prove."""
        self.poll(0)
        if self._failure:
            raise Unavailable(broker(self._settings), f"did not take every event: {self._failure}")
        stream, before = self._reading, self._reading.confirmed
        stream.confirm(self.proven(stream))
        now = time.monotonic()
        if now >= self.due or stream.confirmed > before:
            stream.report()
            self.due = now + min(REPORT_S, self._settings.relay_lease_s / 4)

    def _new_producer(self) -> Producer:
        return Producer(self.config())


def run(relay: type[CdcRelay] = CdcRelay) -> None:
    """Run a relay until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("cdc")
    stop = Stop()
    outage = Outage("Events stay in the log; trying again")
    publisher = relay(load(CdcSettings))
    outage.until(stop, publisher.ready)
    while not stop.asked:
        try:
            publisher.carry()
        except Unavailable as why:
            publisher.restart()
            outage.wait(stop, why)
        except Undecodable as why:
            log.error("%s", why)  # noqa: TRY400 - the bytes are at fault, a traceback would accuse the code
            sys.exit(1)
        else:
            outage.over()
    publisher.close()
