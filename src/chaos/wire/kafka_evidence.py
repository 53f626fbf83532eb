"""What an independent observer of a Kafka broker would find of an effect: the `evidence` of `chaos.wire.steps`.

Topics are named, also where a version speaks of them by their ids: `Topics` maps those, as text, to names, as far as
any Metadata reply has told them. An id that it has not is evidence as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chaos.wire.kafka_effects import topic_of
from chaos.wire.kafka_records import Unreadable, count

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Topics: TypeAlias = Mapping[bytes, bytes]
    Sent: TypeAlias = Mapping[tuple[bytes, int], int]

_PRODUCE: Final = 0
_OFFSET_COMMITS: Final = (8, 28)
_END_TXN: Final = 26
_APPENDED: Final = frozenset(
    (
        0,
        7,  # REQUEST_TIMED_OUT: not replicated in time
        20,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
    )
)
"""Error codes with which a broker says where it has put the records."""


def partition(topics: Topics, topic: bytes, index: int) -> str:
    """A partition as evidence names it."""
    return f"{_text(topics.get(topic, topic))}/{index}"


def sent(api: int, body: Any) -> Sent:
    """How many records a request has for each partition, if it is a Produce; those that cannot be counted are not."""
    return dict(_counts(body)) if api == _PRODUCE else {}


def of_request(api: int, body: Any, counts: Sent, topics: Topics) -> tuple[str, ...]:
    """What is known before the broker has the request, whose body this is; `counts` is what it has `sent`."""
    if api in _OFFSET_COMMITS:
        group = _text(body.group_id or b"")
        return tuple(
            f"offset:{group}:{partition(topics, topic_of(topic), one.partition_index)}:{one.committed_offset}"
            for topic in body.topics
            for one in topic.partitions
        )
    if api == _END_TXN:
        return (f"txn:{_text(body.transactional_id or b'')}",)
    if api == _PRODUCE and body.acks == 0:
        return tuple(f"sent:{partition(topics, *where)}:{number}" for where, number in counts.items())
    return ()


def of_reply(body: Any, counts: Sent | None, topics: Topics) -> tuple[str, ...]:
    """What the reply to a request that `sent` these adds: where they are."""
    if not counts:
        return ()
    return tuple(
        f"log:{partition(topics, *where)}:{one.base_offset}-{one.base_offset + counts[where] - 1}"
        for topic in body.responses
        for one in topic.partition_responses
        if (where := (topic_of(topic), one.index)) in counts and one.base_offset >= 0 and one.error_code in _APPENDED
    )


def _counts(body: Any) -> Iterator[tuple[tuple[bytes, int], int]]:
    for topic in body.topic_data:
        for one in topic.partition_data:
            try:
                number = count(one.records or b"")
            except Unreadable:
                continue
            if number:
                yield (topic_of(topic), one.index), number


def _text(name: bytes) -> str:
    return name.decode(errors="replace")
