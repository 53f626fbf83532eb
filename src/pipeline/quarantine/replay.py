"""Dead letters go back: `python -m pipeline replay GROUP` sends them to the group's retry topic.

Its members read that topic as they read the orders. What is sent has the key, the value and the headers that it always
had, so it is the same event, and members that have acted upon it pass it over. Letters are sent in the order of their
origins, so the events of an order keep theirs.

To press twice is harmless: what was sent is noted in the table `replays`, behind Kafka's confirmation, and not sent
again unless that is asked for. A crash in between sends it twice, which costs an inbox row a look. A letter that comes
back dead is a new one with the same origin, one more in `x-replays`; after so many of them it is left where it is.

A gateway keeps keys for a while, and a charge that is sent back later would be another charge. So what is older is sent
only if the gateway, asked for the order, knows of none.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.events import ItemPriced, Malformed, Reader
from pipeline.gateway_client import Gateway
from pipeline.quarantine.dead import REPLAYS
from pipeline.quarantine.letters import FAILING, POISON, Letter
from pipeline.route.topics import DEAD, RETRY, broker, full_name, producer_config, reader_config, reason, require_topic
from pipeline.runtime import Unavailable, address, first_line, log_to_stderr
from pipeline.settings import ReplaySettings, load

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from confluent_kafka import Message

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
CHARGING, NEW_ORDERS = "payment", Reader(ItemPriced)  # the group that charges, and for what
SENT = "select origin, replays from replays where consumer_group = %s"
NOTE = "insert into replays (consumer_group, origin, replays) values (%s, %s, %s) on conflict do nothing"


class Dead(NamedTuple):
    """A dead letter, and what its burial says: where the event was first, and how often it was sent back by now."""

    letter: Letter
    told: dict[str, str]

    @classmethod
    def of(cls, letter: Letter) -> Dead:
        """Read its headers."""
        return cls(letter, {name: (value or b"").decode(errors="replace") for name, value in letter.headers})

    @property
    def place(self) -> tuple[str, int, int]:
        """Topic, partition and offset of its origin."""
        topic, partition, offset = (self.told[f"x-origin-{one}"] for one in ("topic", "partition", "offset"))
        return topic, int(partition), int(offset)

    @property
    def origin(self) -> str:
        """The same as text."""
        topic, partition, offset = self.place
        return f"{topic}[{partition}]@{offset}"

    @property
    def key(self) -> str:
        """Its order."""
        return (self.letter.key or b"").decode(errors="replace")

    @property
    def age_s(self) -> float:
        """How long ago it was first on a topic: nobody has acted upon it before."""
        return time.time() - int(self.told["x-origin-timestamp"]) / 1000

    @property
    def replays(self) -> int:
        """How often it was sent back."""
        return int(self.told.get(REPLAYS, "0"))

    def __str__(self) -> str:
        told = [self.told.get(f"x-{one}", "") for one in ("kind", "attempts", "exception", "message")]
        return "{} of order {!r}: {} after {} attempts, {}: {}".format(self.origin, self.key, *told)


def dead_letters(settings: ReplaySettings, group: str) -> list[Dead]:
    """The last burial of each letter of a group, in the order of their origins.

    Raises:
        Unavailable: Kafka does not answer.
    """
    found = sorted(map(Dead.of, read(settings, f"{DEAD}.{group}")), key=lambda one: one.replays)
    last = {one.place: one for one in found}
    return [one for _, one in sorted(last.items())]


def read(settings: ReplaySettings, name: str) -> Iterator[Letter]:
    """Everything on a topic by now; nothing if there is no such topic."""
    topic = full_name(settings, name)
    consumer = Consumer(reader_config(settings))
    try:
        found = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
        consumer.assign([TopicPartition(topic, number, 0) for number in found.partitions])
        left = len(found.partitions)
        while left:
            message = consumer.poll(PATIENCE_S)
            if message is None:
                raise Unavailable(broker(settings), f"did not show the end of {topic!r} in {PATIENCE_S:g} s")
            if (error := message.error()) is None:
                yield Letter.of(message)
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                left -= 1
            else:
                raise Unavailable(broker(settings), reason(error))
    except KafkaException as why:
        raise Unavailable(broker(settings), reason(why.args[0])) from why
    finally:
        consumer.close()


class Replay:
    """Sends letters back to `group`, at most so many a second."""

    def __init__(self, settings: ReplaySettings, group: str, per_second: float) -> None:
        self._settings, self._group, self._pause = settings, group, 1 / per_second
        self._topic = f"{RETRY}.{group}"

    def send(self, letters: Sequence[Dead], *, again: bool = False) -> list[Dead]:
        """Send those that were not sent yet, or all of them; which ones that were.

        Raises:
            Unavailable: a server did not do its part. What was sent by then is noted.
        """
        producer = Producer(producer_config(self._settings))
        require_topic(producer, self._settings, self._topic, of=RETRY)
        sent = []
        try:
            with psycopg.connect(self._settings.database_url, autocommit=True, connect_timeout=3) as connection:
                known = set(connection.execute(SENT, [self._group]).fetchall())
                for one in letters:
                    note = (one.origin, one.replays + 1)
                    if again or note not in known:
                        self.put(producer, one)
                        connection.execute(NOTE, [self._group, *note])
                        sent.append(one)
                        time.sleep(self._pause)
        except psycopg.Error as why:
            raise Unavailable(f"Postgres at {address(self._settings.database_url)}", first_line(why)) from why
        return sent

    def put(self, producer: Producer, one: Dead) -> None:
        """Return when Kafka has confirmed it."""
        headers: list[tuple[str, str | bytes | None]] = [
            (name, value) for name, value in one.letter.headers if name != REPLAYS
        ]
        refused, proven = "it was not confirmed in time", False

        def reported(error: KafkaError | None, message: Message) -> None:
            nonlocal refused, proven
            if error is not None:
                refused = reason(error)
            else:
                proven = message.offset() is not None  # see `pipeline.publish.outbox`

        try:
            producer.produce(
                full_name(self._settings, self._topic),
                one.letter.value,
                one.letter.key,
                headers=[*headers, (REPLAYS, str(one.replays + 1))],
                on_delivery=reported,
            )
            producer.flush(PATIENCE_S)
        except KafkaException as why:
            refused = reason(why.args[0])
        if not proven:
            raise Unavailable(broker(self._settings), f"letter {one.origin} not taken: {refused}")


def wanted(letters: Sequence[Dead], asked: argparse.Namespace) -> list[Dead]:
    """Those that the filters leave; those that were sent back too often are named and left out."""
    found = [
        one
        for one in letters
        if (not asked.order or one.key in asked.order)
        and asked.kind in {None, one.told.get("x-kind")}
        and asked.exception in one.told.get("x-exception", "")
    ]
    for one in found:
        if one.replays >= asked.most:
            log.warning("%s: was sent back %d times, which is enough", one, one.replays)
    return [one for one in found if one.replays < asked.most]


def charged_once(settings: ReplaySettings, letters: Sequence[Dead]) -> Iterator[Dead]:
    """Those that cannot charge a second time; the others are named and left out.

    Raises:
        Unavailable: the gateway does not answer.
    """
    with closing(Gateway(settings.gateway_url)) if settings.gateway_url else nullcontext() as gateway:
        for one in letters:
            order_id = new_order(one)
            if order_id is None or one.age_s <= settings.gateway_keeps_keys_s:
                yield one
            elif gateway is None:
                log.warning("%s: the gateway may know its key no more. To have it asked, set GATEWAY_URL", one)
            elif gateway.charges(order_id):
                log.warning("%s: the gateway has its charge; `reconcile` tells the order", one)
            else:
                yield one


def new_order(one: Dead) -> str | None:
    """The order that a letter has placed, if it has."""
    try:
        event = NEW_ORDERS.read(one.letter.value)
    except Malformed:
        return None
    return event.order_id if event else None


def main(argv: Sequence[str] | None = None) -> None:
    """Send back what is asked for, or say what that would be."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", help="whose dead letters, such as inventory")
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")
    parser.add_argument("--order", action="append", metavar="ID", help="only this order's; may be given several times")
    parser.add_argument("--kind", choices=[POISON, FAILING], help="only what nobody could read, or what failed")
    parser.add_argument("--exception", default="", metavar="TEXT", help="only what ended by an exception called so")
    parser.add_argument("--per-second", type=float, default=100, metavar="N", help="not faster (default: 100)")
    parser.add_argument("--most", type=int, default=3, metavar="N", help="not what was sent so often (default: 3)")
    parser.add_argument("--again", action="store_true", help="also what was sent and is not known to have come back")
    asked = parser.parse_args(argv)
    if not asked.per_second > 0:
        parser.error("--per-second is the letters that are sent in a second: more than 0")
    log_to_stderr("replay")
    settings = load(ReplaySettings)
    try:
        letters = wanted(dead_letters(settings, asked.group), asked)
        if asked.group == CHARGING:
            letters = list(charged_once(settings, letters))
        replay = Replay(settings, asked.group, asked.per_second)
        sent = [] if asked.dry_run else replay.send(letters, again=asked.again)
    except Unavailable as why:
        log.error("%s", why)  # noqa: TRY400 - says what to do, a traceback would not
        sys.exit(1)
    done = {one.place for one in sent}
    for one in letters:
        log.info("%s %s", "would be sent" if asked.dry_run else "sent" if one.place in done else "was sent before", one)
    log.info("%d of %d letters were sent to group %r.", len(sent), len(letters), asked.group)
