"""One member of a consumer group: take what is there, have it take effect in one transaction, commit the offsets.

In that order: a crash in between delivers the events again, and the inbox, written in the transaction of the effects,
knows them. What was not read by then is read together the next time, so the more there is to do the fewer transactions
it takes. Events of one order keep their sequence, within a batch and from one to the next.

What is wrong with an event decides what becomes of it:

nobody can read it       it is buried at once (`pipeline.quarantine.dead`)
handling it raises       what is handled together is halved until the event stands alone, so that its neighbours flow;
                         it is tried a few times, and then parked with the later ones of its order
a server is away         nothing is skipped, and nobody's budget is spent: everything is read again until it is back

A batch is finished before the next `poll`, and partitions come and go within one. So there is nothing in flight when
they are revoked, and nothing is committed for those that were lost; no callback is needed. What Kafka is told is
explicit: a stored offset would be committed behind our back.
"""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.events import Malformed, Reader
from pipeline.observe.logs import about
from pipeline.observe.process import done
from pipeline.process import inbox
from pipeline.quarantine.dead import DeadLetters
from pipeline.quarantine.letters import POISON, Failure, Letter
from pipeline.quarantine.parking import Parked, Parking
from pipeline.route.topics import ORDERS, RETRY, broker, full_name, group_config, is_fatal, reason, require_topic
from pipeline.runtime import Database, Outage, Stop, Unavailable, Watchdog, begin
from pipeline.settings import ConsumerSettings, GroupSettings, load

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import psycopg

    from pipeline.events import Event
    from pipeline.route.topics import Config

log = logging.getLogger(__name__)

POLL_S = 0.25  # how long the wish to end may go unheard
AT_ONCE = 500  # messages, at most
PAUSES_S = (0.02, 0.05, 0.1)  # before an event that stands alone is tried once more
PATIENCE_S = 0.5  # for all pauses of a batch: where much fails, neighbours would wait for long
FIRST_PAUSE_S = 0.5  # of an order that is parked
SEEKS, SEEK_PAUSE_S = 5, 0.02  # a rebalance that begins this moment pauses the partition, which undoes a seek


class Handler(Protocol):
    """What a consumer group does with events."""

    name: ClassVar[str]
    events: ClassVar[Sequence[type[Event]]]  # others are none of its business

    def ready(self) -> None:
        """Connect to what `effect` needs besides the database, or raise `Unavailable`."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """Do everything that these events lead to, in the transaction of `connection`.

        None of them was handled before. What is done elsewhere has to be harmless when it is done again. It raises
        `Unavailable` if a server is away, and anything else if an event is at fault.
        """


class Delivery(NamedTuple):
    """An event and the message that it has come in; whether that was sent back to the group."""

    letter: Letter
    event: Event
    back: bool

    def about(self) -> Mapping[str, str]:
        """What a log says of it."""
        return about(self.event.order_id, self.event.event_id, self.letter.traceparent)


class Work:
    """What a group does with events that were read: all of it in one transaction, each event once."""

    def __init__(self, database: Database, handler: Handler, group: str, parking: Parking) -> None:
        self.database, self.handler, self.group, self.parking = database, handler, group, parking
        self.reader = Reader(*handler.events)

    def together(self, batch: Sequence[Delivery]) -> None:
        """Handle them, or park those whose orders wait."""
        with self.database.transaction() as connection:
            waiting = self.parking.waiting(connection, {one.event.order_id for one in batch})
            behind = [one for one in batch if one.event.order_id in waiting]
            if behind:
                self.parking.add(connection, map(parked, behind))
                self.parking.back(connection, {one.event.order_id for one in behind if one.back})
            flowing = [one.event for one in batch if one.event.order_id not in waiting]
            new = self.once(connection, flowing)
        if log.isEnabledFor(logging.DEBUG):
            for one in batch:
                log.debug("%s is %s", one.letter, "parked" if one in behind else "handled", extra=one.about())
        done("events handled", new)
        done("events recognised", len(flowing) - new)
        done("events parked", len(behind))

    def once(self, connection: psycopg.Connection, events: Iterable[Event]) -> int:
        """Have those take effect that have not yet; how many those are."""
        by_id = {event.event_id: event for event in events}
        new = inbox.first_times(connection, self.group, by_id)
        if new:
            self.handler.effect(connection, [event for event_id, event in by_id.items() if event_id in new])
        return len(new)


def parked(delivery: Delivery) -> Parked:
    """What is parked of it."""
    return Parked(delivery.event.order_id, delivery.event.event_id, delivery.letter)


class Member:
    """A member of the group that `handler` is named after; it reads the orders topic and the group's retry topic."""

    work: ClassVar = Work  # a seeded bug may have another
    patience_s: ClassVar = PATIENCE_S

    def __init__(self, settings: GroupSettings, handler: Handler, stop: Stop) -> None:
        self._settings, self._handler, self._stop = settings, handler, stop
        group = full_name(settings, handler.name)
        self._parking = Parking(group, settings.parking_limit)
        self._work = self.work(Database(settings.database_url), handler, group, self._parking)
        self._dead = DeadLetters(settings, handler.name)
        self._patience = 0.0
        self._outage = Outage("Holding at this place, nothing is skipped; trying again")
        self._retries = full_name(settings, f"{RETRY}.{handler.name}")
        self._topics = [full_name(settings, ORDERS), self._retries]
        self._consumer = Consumer(self.config() | {"error_cb": self._broker_error})
        self._committing = commit_watchdog(settings)

    def config(self) -> Config:
        """What its Kafka client is told."""
        return group_config(self._settings, full_name(self._settings, self._handler.name))

    def run(self) -> None:
        """Consume until asked to stop."""
        try:
            # Subscribing first lets the group's join, most of a restart's time, run while the handler connects.
            self._consumer.subscribe(self._topics, on_assign=lambda *_: self._outage.over())
            self._outage.until(self._stop, self._ready)
            while not self._stop.asked:
                self._receive(self._next())
        finally:
            self._consumer.close()

    def process(self, letters: Sequence[Letter], batch: Sequence[Delivery]) -> None:
        """Effects first, offsets second. This order is the guarantee."""
        self.handle(batch)
        self.commit(letters)

    def handle(self, batch: Sequence[Delivery]) -> None:
        """Return when all effects are durable, or what has none is parked."""
        try:
            if batch:
                self._work.together(batch)
        except Unavailable:
            raise
        except Exception as why:  # noqa: BLE001 - whatever it is, it is about these events
            if len(batch) == 1:
                self._failed(batch[0], why)
            else:
                middle = len(batch) // 2
                self.handle(batch[:middle])
                self.handle(batch[middle:])

    def commit(self, letters: Sequence[Letter]) -> None:
        """Return when the broker has stored that these, and what is before them, are done."""
        ends = {one[:2]: TopicPartition(one.topic, one.partition, one.offset + 1) for one in letters}
        try:
            with self._committing:
                self._consumer.commit(offsets=list(ends.values()), asynchronous=False)
        except KafkaException as why:
            raise Unavailable(broker(self._settings), f"offsets not taken: {reason(why.args[0])}") from why

    def _ready(self) -> None:
        require_topic(self._consumer, self._settings, f"{RETRY}.{self._handler.name}", of=RETRY)
        self._work.database.connect()
        self._handler.ready()

    def _next(self) -> list[Letter]:
        """What is there; if that is nothing, the first that comes. Nothing is kept over a call: see above."""
        messages = self._consumer.consume(AT_ONCE, 0)
        if not messages and (first := self._consumer.poll(POLL_S)) is not None:
            messages = [first]
        for error in filter(None, (message.error() for message in messages)):
            self._broker_error(error)
        return [Letter.of(message) for message in messages if message.error() is None]

    def _receive(self, letters: Sequence[Letter]) -> None:
        if not letters:
            return
        self._patience = time.monotonic() + self.patience_s
        try:
            self.process(letters, self._readable(letters))
        except Unavailable as why:
            self._hold(letters, why)
        else:
            self._outage.over()

    def _readable(self, letters: Sequence[Letter]) -> list[Delivery]:
        """The events in them that are ours; what is none is buried."""
        found, poison = [], []
        for letter in letters:
            try:
                event = self._work.reader.read(letter.value)
            except Malformed as why:
                log.error("%s is no event, it goes to the dead letters: %s", letter, why)  # noqa: TRY400 - its own fault
                poison.append((letter, Failure.of(why, kind=POISON)))
                continue
            if event is not None:
                found.append(Delivery(letter, event, back=letter.topic == self._retries))
        self._dead.bury(poison)
        done("letters buried", len(poison))
        return found

    def _failed(self, one: Delivery, why: Exception) -> None:
        """Try it a few times more, then park its order."""
        attempts = 1
        for pause in PAUSES_S:
            if time.monotonic() + pause > self._patience:
                break
            self._stop.wait(pause)
            try:
                return self._work.together([one])
            except Unavailable:
                raise
            except Exception as again:  # noqa: BLE001 - as in `handle`
                attempts, why = attempts + 1, again
        log.error("%s is parked: %r", one.letter, why, extra=one.about())
        with self._work.database.transaction() as connection:
            self._parking.park(connection, parked(one), attempts=attempts, pause_s=FIRST_PAUSE_S, why=repr(why))
        done("events parked")
        return None

    def _hold(self, letters: Sequence[Letter], why: Unavailable) -> None:
        """Make these the next ones again."""
        self._outage.wait(self._stop, why)
        for first in {one[:2]: one for one in reversed(letters)}.values():
            self._go_back(first)

    def _go_back(self, first: Letter) -> None:
        """Make this the next of its partition. Going on from elsewhere would skip it, so it is that or an end."""
        place = TopicPartition(first.topic, first.partition, first.offset)
        for left in reversed(range(SEEKS)):
            try:
                return self._consumer.seek(place)
            except KafkaException as why:
                if place not in self._consumer.assignment():
                    # It was taken from us; its new owner begins at the committed offset, here or before.
                    return log.info("%s is no longer ours: %s", first, reason(why.args[0]))
                if why.args[0].code() != KafkaError._OUTDATED or not left:  # noqa: SLF001 - its public name
                    raise
                time.sleep(SEEK_PAUSE_S)
        return None

    def _broker_error(self, error: KafkaError) -> None:
        broker_error(self._settings, self._outage, error)


def broker_error(settings: ConsumerSettings, outage: Outage, error: KafkaError) -> None:
    """End the process if a member can never work again; else say what librdkafka is mending by itself."""
    if is_fatal(error):  # such as another process with our GROUP_INSTANCE_ID
        log.error("%s told this consumer to end: %s", broker(settings), reason(error))
        sys.exit(1)
    if error.code() != KafkaError._TRANSPORT:  # noqa: SLF001 - one connection of several: no news
        outage.tell(f"{broker(settings)}: {reason(error)}")


def commit_watchdog(settings: ConsumerSettings) -> Watchdog:
    """Ends a process whose commit never returns.

    librdkafka gives a commit up when its coordinator is away for as long as a session, and a request that is not
    answered. But one that it could not even send again, since a broker back from a freeze said that there is no broker
    at all, is tried for ever (confluent-kafka-python issue 1801; seen in librdkafka 2.16).
    """
    patience_s = settings.session_timeout_ms / 1000 + 2 * settings.silence_s
    return Watchdog(f"{broker(settings)} has not let a commit return", patience_s)


def run(handler: type[Handler], member: type[Member] = Member) -> None:
    """Run a member of the handler's group until SIGTERM. `member` is for variations on it, such as seeded bugs."""
    begin(handler.name)
    stop = Stop()
    member(load(GroupSettings), handler(), stop).run()
