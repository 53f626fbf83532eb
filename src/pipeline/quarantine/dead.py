"""The dead-letter topic of a group: what it will not handle, byte for byte, with what is known of why.

One topic for each group, `dead.<group>`, as what one group cannot do is done by the others. Key, value and headers are
those of the origin; a few headers are added, and those of an earlier burial are replaced, so that nothing grows:

x-group x-origin-topic x-origin-partition x-origin-offset x-origin-timestamp   where it was
x-kind                                                                         poison or failing
x-exception x-message x-attempts x-first-failure x-last-failure                what has happened
x-replays                                                                      how often it was sent back, if it was

What comes back dead (`pipeline.quarantine.replay`) keeps the origin that it had.

A letter is buried when Kafka has confirmed it, and before its origin's offset is committed or its row is marked. A
crash in between buries it again: `x-origin-*` says that it is the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import KafkaException, Producer

from pipeline.route.topics import DEAD, broker, full_name, producer_config, reason, require_topic
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import KafkaError, Message

    from pipeline.quarantine.letters import Failure, Letter
    from pipeline.settings import Kafka

OURS = "x-"  # headers that begin so are about burials
REPLAYS = "x-replays"
PATIENCE_S = 10.0


class DeadLetters:
    """Buries letters of `group`. Its client is made when there is a first one."""

    def __init__(self, settings: Kafka, group: str) -> None:
        self._settings, self._group = settings, group
        self._topic = f"{DEAD}.{group}"
        self._producer: Producer | None = None

    def bury(self, letters: Sequence[tuple[Letter, Failure]]) -> None:
        """Return when Kafka has confirmed all of them.

        Raises:
            Unavailable: it has not. Some of them may be there.
        """
        if not letters:
            return
        producer = self._ready()
        proven, refused = 0, ""

        def reported(error: KafkaError | None, message: Message) -> None:
            nonlocal proven, refused
            if error is not None:
                refused = reason(error)
            elif message.offset() is not None:  # see `pipeline.publish.outbox`
                proven += 1

        try:
            for letter, failure in letters:
                producer.produce(
                    full_name(self._settings, self._topic),
                    letter.value,
                    letter.key,
                    headers=headers(self._group, letter, failure),
                    on_delivery=reported,
                )
                producer.poll(0)
            producer.flush(PATIENCE_S)
        except (BufferError, KafkaException) as why:
            self._producer = None
            raise Unavailable(broker(self._settings), f"dead letter not taken: {why}") from why
        if proven < len(letters):
            self._producer = None
            raise Unavailable(broker(self._settings), refused or f"{len(letters) - proven} dead letters not confirmed")

    def _ready(self) -> Producer:
        if self._producer is None:
            producer = Producer(producer_config(self._settings))
            require_topic(producer, self._settings, self._topic, of=DEAD)
            self._producer = producer
        return self._producer


def headers(group: str, letter: Letter, failure: Failure) -> list[tuple[str, str | bytes | None]]:
    """Those of the origin, and why it is here."""
    told = {
        "x-group": group,
        "x-origin-topic": letter.topic,
        "x-origin-partition": letter.partition,
        "x-origin-offset": letter.offset,
        "x-origin-timestamp": letter.at_ms,
        "x-kind": failure.kind,
        "x-exception": failure.exception,
        "x-message": failure.message,
        "x-attempts": failure.attempts,
        "x-first-failure": f"{failure.first:.3f}",
        "x-last-failure": f"{failure.last:.3f}",
    }
    added: dict[str, str | bytes | None] = {name: str(value).encode(errors="replace") for name, value in told.items()}
    was = dict(letter.headers)
    if REPLAYS in was:
        added |= {name: value for name, value in was.items() if name.startswith("x-origin-") or name == REPLAYS}
    return [*((name, value) for name, value in letter.headers if not name.startswith(OURS)), *added.items()]
