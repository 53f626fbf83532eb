"""Dead letters go back: `python -m pipeline replay GROUP` sends them to the group's retry topic.

Its members read that topic as they read the orders. What is sent has the key, the value and the headers that it always
had, so it is the same event, and members that have acted upon it pass it over. Letters are sent in the order of their
origins, so the events of an order keep theirs.

To press twice is harmless: what was sent is noted in the table `replays`, behind Kafka's confirmation, and not sent
again unless that is asked for. A crash in between sends it twice, which costs an inbox row a look. A letter that comes
back dead is a new one with the same origin, one more in `x-replays`; after so many of them it is not sent any more.
What can never be handled can be left for good: that is noted, too, and it is nobody's worry any more.

A dry run says what would be done now, and on stdout the option by which just that is done, `--as-shown`: if it would be
something else by then, nothing is done, and the exit code is 3.

A gateway keeps keys for a while, and a charge that is sent back later would be another charge. So what is older is sent
only if the gateway, asked for the order, knows of none.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import sys
import time
from contextlib import closing, contextmanager, nullcontext
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from pipeline.events import ItemPriced, Malformed, Reader
from pipeline.gateway_client import Gateway
from pipeline.observe.gauges import GROUPS
from pipeline.quarantine.dead import REPLAYS
from pipeline.quarantine.letters import FAILING, POISON, Letter
from pipeline.route.topics import DEAD, RETRY, broker, full_name, producer_config, reader_config, reason, require_topic
from pipeline.runtime import Unavailable, address, begin, first_line
from pipeline.settings import ReplaySettings, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from confluent_kafka import Message

log = logging.getLogger(__name__)

PATIENCE_S = 10.0
CHANGED = 3  # exit code: it is not what was shown
TOPIC, DIGITS, FEW_DIGITS = (re.compile(one) for one in (r"[A-Za-z0-9._-]{1,249}", r"[0-9]{1,18}", r"[0-9]{1,9}"))
CHARGING, NEW_ORDERS = "payment", Reader(ItemPriced)  # the group that charges, and for what
ORIGIN, TIMESTAMP = ("x-origin-topic", "x-origin-partition", "x-origin-offset"), "x-origin-timestamp"
NOTED = "select origin, replays from replays where consumer_group = %s"
NOTE = """
    insert into replays (consumer_group, origin, replays, fate) values (%s, %s, %s, %s)
    on conflict (consumer_group, origin, replays) do update set fate = excluded.fate
    where replays.fate = 'left' and excluded.fate = 'sent'
"""


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
        """Topic, partition and offset of its origin; its own, if somebody else has put it there, whatever that says."""
        topic, partition, offset = (self.told.get(name, "") for name in ORIGIN)
        if TOPIC.fullmatch(topic) and FEW_DIGITS.fullmatch(partition) and DIGITS.fullmatch(offset):
            return topic, int(partition), int(offset)
        return self.letter.topic, self.letter.partition, self.letter.offset

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
        """How long ago it was first on a topic: nobody has acted upon it before. If that is no number, very long."""
        at_ms = self.told.get(TIMESTAMP, str(self.letter.at_ms))
        return time.time() - (int(at_ms) / 1000 if DIGITS.fullmatch(at_ms) else 0.0)

    @property
    def replays(self) -> int:
        """How often it was sent back; never, if that is no number."""
        told = self.told.get(REPLAYS, "")
        return int(told) if FEW_DIGITS.fullmatch(told) else 0

    @property
    def kind(self) -> str:
        """What somebody else has put there nobody has tried: it may go back, and is called poison if it is."""
        return POISON if self.told.get("x-kind") == POISON else FAILING

    @property
    def ignored(self) -> list[str]:
        """Its headers that are called as ours, and say what ours never do."""
        origin = [name for name in ORIGIN if name in self.told]
        own = (self.letter.topic, self.letter.partition, self.letter.offset)
        told = {REPLAYS: FEW_DIGITS, TIMESTAMP: DIGITS}
        wrong = [name for name, good in told.items() if name in self.told and not good.fullmatch(self.told[name])]
        return wrong + (origin if self.place == own else [])

    def __str__(self) -> str:
        told = [self.told.get(f"x-{one}", "") for one in ("kind", "attempts", "exception", "message")]
        text = "{} of order {!r}: {} after {} attempts, {}: {}".format(self.origin, self.key, *told)
        return f"{text} ({', '.join(self.ignored)} cannot be read, and counts for nothing)" if self.ignored else text


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

    def waiting(self, letters: Sequence[Dead]) -> list[Dead]:
        """Those that were neither sent nor left yet.

        Raises:
            Unavailable: Postgres does not answer.
        """
        with self._postgres() as connection:
            known = self._known(connection)
        return [one for one in letters if (one.origin, one.replays + 1) not in known]

    def send(self, letters: Sequence[Dead], *, again: bool = False) -> list[Dead]:
        """Send those that were neither sent nor left yet, or all of them; which ones that were.

        Raises:
            Unavailable: a server did not do its part. What was sent by then is noted.
        """
        producer = Producer(producer_config(self._settings))
        require_topic(producer, self._settings, self._topic, of=RETRY)

        def put(one: Dead) -> None:
            self.put(producer, one)
            time.sleep(self._pause)

        return self._note(letters, "sent", put, again=again)

    def leave(self, letters: Sequence[Dead]) -> list[Dead]:
        """Note of those that were neither sent nor left yet that they stay where they are; which ones that were.

        Raises:
            Unavailable: Postgres did not do its part. What was left by then is noted.
        """
        return self._note(letters, "left", lambda _: None, again=False)

    def _note(self, letters: Sequence[Dead], fate: str, step: Callable[[Dead], None], *, again: bool) -> list[Dead]:
        taken = []
        with self._postgres() as connection:
            known = self._known(connection)
            for one in letters:
                note = (one.origin, one.replays + 1)
                if again or note not in known:
                    step(one)
                    connection.execute(NOTE, [self._group, *note, fate])
                    taken.append(one)
        return taken

    def _known(self, connection: psycopg.Connection) -> set[tuple[str, int]]:
        return set(connection.execute(NOTED, [self._group]).fetchall())

    @contextmanager
    def _postgres(self) -> Iterator[psycopg.Connection]:
        url = self._settings.database_url
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
                yield connection
        except psycopg.Error as why:
            raise Unavailable(f"Postgres at {address(url)}", first_line(why)) from why

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
    """Those that the filters leave."""
    return [
        one
        for one in letters
        if (not asked.order or one.key in asked.order)
        and asked.kind in {None, one.kind}
        and asked.exception in one.told.get("x-exception", "")
    ]


def not_too_often(letters: Sequence[Dead], most: int) -> Iterator[Dead]:
    """Those that were not sent back so often yet; the others are named and left out."""
    for one in letters:
        if one.replays < most:
            yield one
        else:
            log.warning("%s: was sent back %d times, which is enough; see --leave", one, one.replays)


def charged_once(settings: ReplaySettings, letters: Sequence[Dead]) -> Iterator[Dead]:
    """Those that cannot charge a second time; the others are named and left out.

    Raises:
        Unavailable: the gateway does not answer.
    """
    url = settings.gateway_url
    with closing(Gateway(url, settings.silence_s)) if url else nullcontext() as gateway:
        for one in letters:
            order_id = new_order(one)
            if order_id is None or one.age_s <= settings.gateway_keeps_keys_s:
                yield one
            elif gateway is None:
                log.warning("%s: the gateway may know its key no more. To have it asked, set GATEWAY_URL", one)
            elif gateway.charges(order_id):
                log.warning("%s: the gateway has its charge, and `reconcile` tells the order; see --leave", one)
            else:
                yield one


def new_order(one: Dead) -> str | None:
    """The order that a letter has placed, if it has."""
    try:
        event = NEW_ORDERS.read(one.letter.value)
    except Malformed:
        return None
    return event.order_id if event else None


def asked_for(argv: Sequence[str] | None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline replay", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS, help="whose dead letters")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
    parser.add_argument(
        "--leave", action="store_true", help="send nothing: these stay where they are, and have been seen"
    )
    parser.add_argument("--order", action="append", metavar="ID", help="only this order's; may be given several times")
    parser.add_argument("--kind", choices=[POISON, FAILING], help="only what nobody could read, or what failed")
    parser.add_argument("--exception", default="", metavar="TEXT", help="only what ended by an exception called so")
    parser.add_argument("--per-second", type=float, default=100, metavar="N", help="not faster (default: 100)")
    parser.add_argument(
        "--most", type=int, default=3, metavar="N", help="do not send what was sent so often (default: 3)"
    )
    parser.add_argument(
        "--again", action="store_true", help="also what was left, or was sent and is not known to have come back"
    )
    parser.add_argument(
        "--as-shown", metavar="WHAT", help="only if that is what a dry run has shown, which has said WHAT"
    )
    asked = parser.parse_args(argv)
    if not asked.per_second > 0:
        parser.error("--per-second is the letters that are sent in a second: more than 0")
    return asked


def digest(letters: Sequence[Dead], asked: argparse.Namespace) -> str:
    """Stands for what would be done: to which letters, as they are shown."""
    told = [asked.group, asked.leave, *((str(one), one.replays) for one in letters)]
    return sha256(json.dumps(told).encode()).hexdigest()[:16]


def main(argv: Sequence[str] | None = None) -> None:
    """Send back what is asked for, or say what that would be."""
    asked = asked_for(argv)
    begin("replay", exposing=False)
    settings = load(ReplaySettings)
    replay = Replay(settings, asked.group, asked.per_second)
    try:
        found = wanted(dead_letters(settings, asked.group), asked)
        letters = found if asked.again and not asked.leave else replay.waiting(found)
        seen = len(found) - len(letters)
        if not asked.leave:
            letters = list(not_too_often(letters, asked.most))
            letters = list(charged_once(settings, letters)) if asked.group == CHARGING else letters
        what = digest(letters, asked)
        changed = asked.as_shown not in {None, what}
        if not (dry := asked.dry_run or changed):
            letters = replay.leave(letters) if asked.leave else replay.send(letters, again=asked.again)
    except Unavailable as why:
        log.error("%s", why)  # noqa: TRY400 - says what to do, a traceback would not
        sys.exit(1)
    one_was, all_were = ("would be", "would be") if dry else ("was", "were")
    for one in letters:
        log.info("%s %s: %s", one_was, "left where it is" if asked.leave else "sent", one)
    end = "left where they are" if asked.leave else f"sent to group {asked.group!r}"
    log.info("%d of %d letters %s %s; %d were seen to before.", len(letters), len(found), all_were, end, seen)
    if dry and letters:
        print(f"--as-shown {what}", flush=True)  # noqa: T201 - not of the log: for who asks for just that
    if changed:
        log.error("This is not what was shown before, so nothing was done.")
        sys.exit(CHANGED)
