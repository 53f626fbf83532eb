"""What a Kafka request does to the world, and what the broker said about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chaos.wire.kafka_records import contents

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chaos.wire.steps import Outcome

_LEAVE_EPOCHS: Final = (-1, -2)
_SHARE_FETCH: Final = 78

_OPEN: Final = frozenset(
    (
        -1,  # UNKNOWN_SERVER_ERROR: anywhere on the way
        7,  # REQUEST_TIMED_OUT: appended, and not replicated in time
        13,  # NETWORK_EXCEPTION
        15,  # COORDINATOR_NOT_AVAILABLE: what a commit of offsets says instead of the next and of a time-out
        20,  # NOT_ENOUGH_REPLICAS_AFTER_APPEND
        46,  # DUPLICATE_SEQUENCE_NUMBER: it was written before
        56,  # KAFKA_STORAGE_ERROR: the disk failed while writing
    )
)
"""Error codes after which the effect may have happened or may still happen."""


class Seen(NamedTuple):
    """What a request turns out to be."""

    site: str
    contents: tuple[bytes, ...]
    answered: bool = True
    not_understood: tuple[str, ...] = ()


def _produce(body: Any) -> Seen:
    sections = [partition.records or b"" for topic in body.topic_data for partition in topic.partition_data]
    pieces = list(contents(sections))
    unread = tuple(unread for _, unread in pieces if unread)
    return Seen("kafka.produce", tuple(piece for piece, _ in pieces), body.acks != 0, unread)


def topic_of(part: Any) -> bytes:
    """The name of the topic that a part of a body is about, or its id as text where the version knows it by that."""
    return getattr(part, "name", None) or getattr(part, "topic_id", None) or b""


def _offsets(body: Any) -> Iterator[bytes]:
    for topic in body.topics:
        for partition in topic.partitions:
            yield b"%b:%d:%d" % (topic_of(topic), partition.partition_index, partition.committed_offset)


def _commit_offsets(body: Any) -> Seen:
    return Seen("kafka.offset_commit", (body.group_id or b"", *_offsets(body)))


def _commit_offsets_in_transaction(body: Any) -> Seen:
    groups = (body.group_id or b"", body.transactional_id or b"")
    return Seen("kafka.txn_offset_commit", (*groups, *_offsets(body)))


def _end_transaction(body: Any) -> Seen:
    site = "kafka.commit_transaction" if body.committed else "kafka.abort_transaction"
    return Seen(site, (body.transactional_id or b"",))


def _init_producer_id(body: Any) -> Seen | None:
    if body.transactional_id is None:
        return None
    return Seen("kafka.init_producer_id", (body.transactional_id,))


def _leave_group(body: Any) -> Seen:
    members = [member.member_id for member in body.members] if hasattr(body, "members") else [body.member_id]
    return Seen("kafka.leave_group", (body.group_id or b"", *(member or b"" for member in members)))


def _heartbeat(body: Any) -> Seen | None:
    """Heartbeats of the newer groups say with a negative epoch that the member leaves."""
    if body.member_epoch not in _LEAVE_EPOCHS:
        return None
    return Seen("kafka.leave_group", (body.group_id or b"", body.member_id or b""))


def _create_topics(body: Any) -> Seen | None:
    if getattr(body, "validate_only", False):
        return None
    return Seen("kafka.create_topics", tuple(map(topic_of, body.topics)))


def _delete_topics(body: Any) -> Seen:
    names = map(topic_of, body.topics) if hasattr(body, "topics") else (name or b"" for name in body.topic_names)
    return Seen("kafka.delete_topics", tuple(names))


def _delete_groups(body: Any) -> Seen:
    return Seen("kafka.delete_groups", tuple(name or b"" for name in body.groups_names))


def _acknowledge(body: Any) -> Seen | None:
    """Acknowledgements of a share group, sent alone or along with its next fetch."""
    pieces = [
        b"%b:%d:%d-%d" % (topic_of(topic), partition.partition_index, batch.first_offset, batch.last_offset)
        for topic in body.topics
        for partition in topic.partitions
        for batch in partition.acknowledgement_batches
    ]
    return Seen("kafka.share_acknowledge", (body.group_id or b"", *pieces)) if pieces else None


EFFECTS: Final[Mapping[int, Callable[[Any], Seen | None]]] = {
    0: _produce,
    8: _commit_offsets,
    13: _leave_group,
    19: _create_topics,
    20: _delete_topics,
    22: _init_producer_id,
    26: _end_transaction,
    28: _commit_offsets_in_transaction,
    42: _delete_groups,
    68: _heartbeat,  # of consumer groups
    76: _heartbeat,  # of share groups
    _SHARE_FETCH: _acknowledge,
    79: _acknowledge,
    88: _heartbeat,  # of streams groups
}
"""By api key: what a request is, or None if this one changes nothing."""


def outcome(api: int, body: Any) -> Outcome:
    """What the reply to an effect says of it."""
    if api == _SHARE_FETCH:  # the other codes are about what was fetched
        partitions = [partition for topic in body.responses for partition in topic.partitions]
        codes = {body.error_code, *(partition.acknowledge_error_code for partition in partitions)}
    else:
        codes = set(_error_codes(body))
    if codes & _OPEN:
        return "unclear"
    return "refused" if codes - {0} else "done"


def _error_codes(body: Any) -> Iterable[int]:
    """All error codes of a reply, however deep."""
    for name, value in vars(body).items():
        if name == "error_code":
            yield value
        elif isinstance(value, list):
            for element in value:
                if hasattr(element, "__dict__"):
                    yield from _error_codes(element)
