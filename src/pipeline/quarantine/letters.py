"""A message as it was on its topic, byte for byte, and where that was; and what has gone wrong with it."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from confluent_kafka import Message

POISON, FAILING = "poison", "failing"  # nobody can read it; handling it raises
TRACEPARENT = "traceparent"
LONGEST = 1_000  # characters of an exception's text


class Letter(NamedTuple):
    """A message and its place. Times are Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    at_ms: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]

    @classmethod
    def of(cls, message: Message) -> Letter:
        """What has come from a broker. The casts: only messages that never did lack these."""
        headers = cast("list[tuple[str, bytes | None]]", message.headers() or [])
        place = (cast("str", message.topic()), cast("int", message.partition()), cast("int", message.offset()))
        return cls(*place, message.timestamp()[1], message.key(), message.value(), headers)

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def traceparent(self) -> str | None:
        """Of the request that has led to it, if it says so."""
        return next((value.decode("latin-1") for name, value in self.headers if name == TRACEPARENT and value), None)

    def origin(self) -> str:
        """Its place and its headers as JSON; bytes as the characters with their numbers."""
        headers = [(name, None if value is None else value.decode("latin-1")) for name, value in self.headers]
        return json.dumps([self.topic, self.partition, self.offset, self.at_ms, headers])

    @classmethod
    def from_origin(cls, origin: list[object], key: bytes | None, value: bytes | None) -> Letter:
        """The letter of which `origin` was kept."""
        topic, partition, offset, at_ms, headers = cast(
            "tuple[str, int, int, int, list[tuple[str, str | None]]]", origin
        )
        was = [(name, None if text is None else text.encode("latin-1")) for name, text in headers]
        return cls(topic, partition, offset, at_ms, key, value, was)


class Failure(NamedTuple):
    """What has gone wrong, how often, and since when (Unix seconds)."""

    kind: str
    exception: str
    message: str
    attempts: int
    first: float
    last: float

    @classmethod
    def of(cls, why: Exception, *, kind: str = FAILING, attempts: int = 1, first: float | None = None) -> Failure:
        """Of the last attempt, which has just ended."""
        now = time.time()
        name = f"{type(why).__module__}.{type(why).__qualname__}"
        return cls(kind, name, str(why)[:LONGEST], attempts, now if first is None else first, now)
