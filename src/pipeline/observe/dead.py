"""What is in the dead-letter topics, and how much of it nobody has seen to: neither sent back nor left for good.

A letter is known by its origin. One that was buried twice is one, and one that was sent back and has come back dead
waits again.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from pipeline.observe.gauges import GROUPS
from pipeline.quarantine.letters import Letter
from pipeline.quarantine.replay import Dead
from pipeline.route.topics import DEAD, broker, full_name, reader_config, reason
from pipeline.runtime import Unavailable, address, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.observe.postgres import Reading
    from pipeline.settings import ObserveSettings

PATIENCE_S = 5.0
NOTED = "select consumer_group, origin, max(replays) from replays group by consumer_group, origin"


class DeadLetters:
    """Reads on where it was, so that a topic which is kept for ever is read once."""

    def __init__(self, settings: ObserveSettings) -> None:
        self._settings = settings
        self._reader = Consumer(reader_config(settings))
        self._next: dict[tuple[str, int], int] = {}
        self._rounds: dict[str, dict[str, int]] = {}  # by group and origin: how often a letter has been sent back

    def readings(self) -> Iterator[Reading]:
        """Name, labels and value of each gauge, as they are now.

        Raises:
            Unavailable: Kafka or Postgres does not answer, or not in time.
        """
        try:
            self._read()
        except KafkaException as why:
            raise Unavailable(broker(self._settings), reason(why.args[0])) from why
        noted = self._noted()
        for group, letters in self._rounds.items():
            yield "dead_letters", (group,), len(letters)
            waiting = [origin for origin, rounds in letters.items() if noted.get((group, origin), 0) <= rounds]
            yield "dead_letters_waiting", (group,), len(waiting)

    def _noted(self) -> dict[tuple[str, str], int]:
        url = self._settings.database_url
        try:
            with psycopg.connect(url, autocommit=True, connect_timeout=2) as connection:
                return {(group, origin): times for group, origin, times in connection.execute(NOTED)}
        except psycopg.Error as why:
            raise Unavailable(f"Postgres at {address(url)}", first_line(why)) from why

    def _read(self) -> None:
        groups = {full_name(self._settings, f"{DEAD}.{group}"): group for group in GROUPS}
        there = self._reader.list_topics(timeout=PATIENCE_S).topics
        left = {(topic, number) for topic in groups.keys() & there.keys() for number in there[topic].partitions}
        for topic, _ in left:
            self._rounds.setdefault(groups[topic], {})
        self._reader.assign([TopicPartition(*place, self._next.get(place, 0)) for place in left])
        deadline = time.monotonic() + PATIENCE_S
        while left:
            if (message := self._reader.poll(max(0.0, deadline - time.monotonic()))) is None:
                raise Unavailable(broker(self._settings), f"dead letters could not be read in {PATIENCE_S:g} s")
            place = (str(message.topic()), int(str(message.partition())))
            if (error := message.error()) is None:
                origin, rounds = told(Letter.of(message))
                letters = self._rounds[groups[place[0]]]
                letters[origin] = max(rounds, letters.get(origin, 0))
                self._next[place] = int(str(message.offset())) + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
                left.discard(place)
            else:
                raise Unavailable(broker(self._settings), reason(error))


def told(letter: Letter) -> tuple[str, int]:
    """Its origin, and how often it was sent back; one whose headers are no numbers is one of nobody we know."""
    dead = Dead.of(letter)
    try:
        return dead.origin, dead.replays
    except ValueError:
        return str(letter), 0
