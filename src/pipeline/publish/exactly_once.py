"""The CDC relay with Kafka's transactions: each event is on the topic once, for whoever reads what is committed.

What a look at the slot has brought is one transaction of Kafka's. The last message in it, on a topic of its own, is
how far that is: the end of the last transaction of Postgres that is whole, and how many rows of the next one, as a
large one is split. Events and place become visible together or not at all. Only then is the slot told; a crash in
between costs nothing, as the next start reads the place and passes over what is sent again.

A relay that was stopped, has lost its slot to another one, and wakes is refused by Kafka: both have the slot's name as
their `transactional.id`, and the younger has asked for it last. It asks only when it has the slot, so that one without
a slot never puts an end to one that has it.

It costs a round trip or two for each look, and readers wait for the end of a transaction: one that hangs is given up by
Kafka after `TRANSACTION_MS`, and nothing behind it is read until then. A reader that is not told `read_committed` also
sees what was given up; that is librdkafka's default, and not Java's.

Source: KIP-98 for fencing; KIP-618 for places that are written in the transaction of what they stand for.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.publish.cdc import BUSY_S, CdcRelay, Transaction
from pipeline.route.topics import PROGRESS, broker, full_name, reader_config, reason, require_topic
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.publish.pgoutput import Begin, Commit, Insert
    from pipeline.publish.replication import Stream
    from pipeline.route.topics import Config
    from pipeline.settings import CdcSettings

TRANSACTION_MS = 10_000
STEP_S = 0.2  # how long Kafka is waited for before Postgres hears that we are there
PATIENCE_S = 10.0
TAIL = 64  # messages of the progress topic that are looked at first


class Place(NamedTuple):
    """Everything that ends at `end_lsn` or before it, and so many `rows` of what is committed at `commit_lsn`.

    Places are counted by a server: in the log of another one, or of one that was set back, they mean nothing.
    """

    server: str = ""
    end_lsn: int = 0
    commit_lsn: int = 0
    rows: int = 0

    def covers(self, commit_lsn: int, row: int) -> bool:
        """Whether a row of a transaction is within."""
        return commit_lsn < self.end_lsn or (commit_lsn == self.commit_lsn and row <= self.rows)


class ExactlyOnce(CdcRelay):
    """Carries the outbox to one topic, each event once. Safe to abandon at any line."""

    together_s = 0.25  # or a walsender that is slow decides what is a transaction of Kafka's

    def __init__(self, settings: CdcSettings) -> None:
        super().__init__(settings)
        self._progress = f"{PROGRESS}.{settings.slot}"  # its own: another's open transaction would hide its end
        self._fresh = True  # the producer has no transactions yet
        self._open = False  # whether a transaction is under way
        self._safe = 0
        self._place = Place()
        self._row = 0  # of the transaction

    def config(self) -> Config:
        """What the producer is told."""
        name = full_name(self._settings, f"relay.{self._settings.slot}")
        return super().config() | {
            "transactional.id": name,
            "transaction.timeout.ms": TRANSACTION_MS,
            "linger.ms": 5,  # until it is flushed, which is at once
        }

    def ready(self) -> None:
        """Raise `Unavailable` unless slot and topics are ours; read how far somebody has come."""
        if not self._fresh:
            self.restart()
        require_topic(self.producer, self._settings, self._progress, of=PROGRESS)
        super().ready()
        self._open, self._safe, self._fresh = False, 0, False
        self._in_kafka(self.producer.init_transactions)
        self._place = self.read_place()

    def restart(self) -> None:
        """Give up slot, transaction and producer; the next one begins where the last transaction has ended."""
        self.close()
        if not self._fresh:
            self.producer = self._new_producer()
            self._fresh = True

    def deliver(self) -> None:
        """Have what was read, and the place, on the topics, both or none.

        The transaction is ended only when each of its messages is proven to be there: Kafka commits the others, too.
        """
        if not self.taken:
            return
        self._open = True
        try:
            self.producer.begin_transaction()
            super().deliver()
            topic, report = full_name(self._settings, self._progress), self._reporting(Transaction())
            self.producer.produce(topic, json.dumps(self._place), self._settings.slot, partition=0, on_delivery=report)
            while self.producer.flush(BUSY_S):
                self._confirm()
        except KafkaException as why:
            raise Unavailable(broker(self._settings), reason(why.args[0])) from why
        self._confirm()
        self._in_kafka(self.producer.commit_transaction)
        self._open = False

    def proven(self, _stream: Stream) -> int:
        """The place before which everything is committed in Kafka."""
        if not self._open:
            self._safe = self.progress.advance()
        return self._safe

    def began(self, begin: Begin) -> None:
        """A transaction begins, of which some rows may be there."""
        super().began(begin)
        self._row = 0

    def inserted(self, row: Insert) -> None:
        """A row of the outbox; nothing is done with one that is there."""
        self._row += 1
        if not self._place.covers(self.commit_lsn, self._row):
            self._place = Place(self._place.server, self._place.end_lsn, self.commit_lsn, self._row)
            super().inserted(row)

    def committed(self, commit: Commit) -> None:
        """The end of the transaction."""
        super().committed(commit)
        if commit.end_lsn > self._place.end_lsn:
            self._place = Place(self._place.server, commit.end_lsn)

    def read_place(self) -> Place:
        """What the last transaction in Kafka says.

        Raises:
            Unavailable: Kafka does not answer, or another server has counted; or this one, before it was set back.
        """
        stream, found = self._reading, Place()
        consumer = Consumer(reader_config(self._settings))
        topic = TopicPartition(full_name(self._settings, self._progress), 0)
        try:
            low, end = consumer.get_watermark_offsets(topic, timeout=PATIENCE_S)
            for back in (TAIL, TAIL**2, end):  # the ends of transactions have offsets too
                found = self._last_behind(consumer, max(low, end - back))
                if found.server or end - back <= low:
                    break
        except KafkaException as why:
            raise Unavailable(broker(self._settings), reason(why.args[0])) from why
        finally:
            consumer.close()
        if found.server and (found.server != stream.server or found.end_lsn > stream.written):
            read = f"Slot {self._settings.slot!r} was read to {found.end_lsn} of server {found.server}"
            is_now = f"this is {stream.server} and has written {stream.written}. Make a slot of another name"
            raise Unavailable(read, is_now)
        return found._replace(server=stream.server)

    def _last_behind(self, consumer: Consumer, begin: int) -> Place:
        """The last place from this offset on; an empty one if there is none."""
        consumer.assign([TopicPartition(full_name(self._settings, self._progress), 0, begin)])
        found = Place()
        while (message := consumer.poll(PATIENCE_S)) is not None:
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                return found
            if error is not None:
                raise KafkaException(error)
            found = Place(*json.loads(message.value() or b""))
        raise Unavailable(broker(self._settings), f"did not show the end of {self._progress!r} in {PATIENCE_S:g} s")

    def _in_kafka(self, step: Callable[[float], object]) -> None:
        """Take a step of a transaction, however long it takes, and tell Postgres meanwhile that we are there."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                step(STEP_S)
            except KafkaException as why:
                error = why.args[0]
                if not error.retriable() or time.monotonic() > deadline:
                    raise Unavailable(broker(self._settings), reason(error)) from why
                self._confirm()
            else:
                return
