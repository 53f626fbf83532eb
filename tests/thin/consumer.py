"""The loop of a consumer group: take an event, have it handled, commit its offset, in that order.

The offset is committed only after the handler has returned, so after the effect is in the database: a crash in between
delivers the event again, and the handler's inbox recognises it. An event is never skipped. While the handler cannot
finish (database away, gateway silent) the loop stays at this event: it seeks back to it, pauses and polls it again, so
that it remains a living member of its group and a rebalance can take the partition to somebody more fortunate.

An event that can never be handled (`Poison`) ends the process with exit code 1 and its offset uncommitted: loud, and
nothing is lost. Setting such events aside comes with the quarantine.

Needs no callback for revoked partitions: they go during a `poll`, and nothing is in flight during a `poll`.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Protocol, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from msgspec import DecodeError
from msgspec.json import Decoder

from chaos.checkpoint import checkpoint
from pipeline.events import OrderPlaced
from pipeline.process.member import broker_error, commit_watchdog
from pipeline.route.topics import ORDERS, broker, consumer_config, full_name, reason
from pipeline.runtime import Outage, Stop, Unavailable

if TYPE_CHECKING:
    from pipeline.route.topics import Config
    from pipeline.settings import ConsumerSettings

log = logging.getLogger(__name__)

_decode = Decoder(OrderPlaced).decode

POLL_S = 0.25  # how long the wish to end may go unheard


class Poison(Exception):
    """This event can never be handled, however often it is tried."""


class Handler(Protocol):
    """What a consumer group does with an event."""

    name: str

    def ready(self) -> None:
        """Connect to what `handle` needs, or raise `Unavailable`."""

    def handle(self, event: OrderPlaced) -> None:
        """Take effect, durably, or recognise that this was done before.

        Raises `Unavailable` if it should be tried again, `Poison` if that would be pointless.
        """


class GroupConsumer:
    """One member of the group that `handler` is named after, on the orders topic."""

    def __init__(self, settings: ConsumerSettings, handler: Handler, stop: Stop) -> None:
        self._settings, self._handler, self._stop = settings, handler, stop
        self._outage = Outage("Holding at this place, nothing is skipped; trying again")
        self._topic = full_name(settings, ORDERS)
        self._consumer = Consumer(self.config() | {"error_cb": self._broker_error})
        self._committing = commit_watchdog(settings)

    def config(self) -> Config:
        """What its Kafka client is told."""
        return consumer_config(self._settings, full_name(self._settings, self._handler.name))

    def run(self) -> None:
        """Consume until asked to stop."""
        try:
            # Subscribing first lets the group's join, most of a restart's time, run while the handler connects.
            self._consumer.subscribe([self._topic], on_assign=lambda *_: self._outage.over())
            self._outage.until(self._stop, self._handler.ready)
            while not self._stop.asked:
                message = self._consumer.poll(POLL_S)
                if message is not None:
                    self._receive(message)
        finally:
            self._consumer.close()

    def process(self, message: Message, event: OrderPlaced) -> None:
        """Effect first, offset second. This order is the guarantee."""
        self.handle(event)
        self.commit(message)

    def handle(self, event: OrderPlaced) -> None:
        """Return when the effect is durable."""
        self._handler.handle(event)
        checkpoint(f"{self._handler.name}.committed")

    def commit(self, message: Message) -> None:
        """Return when the broker has stored that this message is done."""
        try:
            with self._committing:
                self._consumer.commit(message=message, asynchronous=False)
        except KafkaException as why:
            raise Unavailable(broker(self._settings), f"offset not taken: {reason(why.args[0])}") from why
        checkpoint(f"{self._handler.name}.offset_committed")

    def _receive(self, message: Message) -> None:
        if (error := message.error()) is not None:
            self._broker_error(error)
            return
        try:
            event = decode(message)
            checkpoint(f"{self._handler.name}.received")
            self.process(message, event)
        except Poison as why:
            log.error("%s can never be handled: %s. Ending, its offset is not committed.", where(message), why)  # noqa: TRY400 - the event is at fault, a traceback would accuse the code
            sys.exit(1)
        except Unavailable as why:
            self._hold(message, why)
        else:
            self._outage.over()

    def _hold(self, message: Message, why: Unavailable) -> None:
        """Make this message the next one again."""
        self._outage.wait(self._stop, why)
        try:
            self._consumer.seek(_place(message))
        except KafkaException as gone:
            if _place(message) in self._consumer.assignment():
                raise  # going on from here would skip the message
            # The partition was taken from us; its new owner begins at the committed offset, at this message.
            log.info("%s is no longer ours: %s", where(message), reason(gone.args[0]))

    def _broker_error(self, error: KafkaError) -> None:
        broker_error(self._settings, self._outage, error)


def decode(message: Message) -> OrderPlaced:
    """The event in a message, or `Poison` that says where it is and what is wrong with it."""
    try:
        return _decode(message.value() or b"")
    except (DecodeError, UnicodeDecodeError, RecursionError) as why:
        raise Poison(str(why)) from why


def where(message: Message) -> str:
    """A message's place, for people."""
    return f"{message.topic()}[{message.partition()}]@{message.offset()}"


def _place(message: Message) -> TopicPartition:
    # The casts: only messages that never came from a broker lack these.
    return TopicPartition(cast("str", message.topic()), cast("int", message.partition()), cast("int", message.offset()))
