"""The Kafka protocol: which frames change the world, and what the broker said to them.

Only headers are looked at: four bytes of size, then api, version and correlation id. Frames of an api that is never an
effect pass in the chunks they came in; a large Fetch costs a counter. Frames that may be an effect are kept back until
they are complete, then read; so are the replies to effects, found by their correlation id.

What is an effect: see `_EFFECTS`. What is not, though it changes something in the broker:

- AddPartitionsToTxn, AddOffsetsToTxn: they announce what a transaction is going to touch. Nobody can see that they were
  sent; without the EndTxn, which is the effect, nothing comes of them. They are state.
- InitProducerId without a transactional id: it hands out a number. With one it fences the predecessor and ends its
  transaction, which is an effect.
- JoinGroup, SyncGroup, Heartbeat, and those heartbeats of the newer groups that do not leave: membership, also state.
- Topics created with `validate_only`.

Known limits: a reply with several error codes is ``refused`` if any of them says so, even when some of the partitions
were written; after a SaslHandshake v0 come frames without headers, so the connection is given up as raw.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chaos.wire.kafka_bodies import NAMES, Malformed, knows, read_reply, read_request
from chaos.wire.kafka_records import contents
from chaos.wire.steps import Answer, Delivered, Effect, Pass, Raw

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from chaos.wire.steps import Outcome, Step

LIMIT: Final = 100 << 20
"""The broker's own ``socket.request.max.bytes``: a longer frame is none."""

_REQUEST: Final = struct.Struct(">ihhi")
_REPLY: Final = struct.Struct(">ii")
_TLS: Final = b"\x16\x03"
_SASL_HANDSHAKE: Final = 17
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


class _Seen(NamedTuple):
    """What a request turns out to be."""

    site: str
    contents: tuple[bytes, ...]
    answered: bool = True
    not_understood: tuple[str, ...] = ()


def _produce(body: Any) -> _Seen:
    batches = [partition.records or b"" for topic in body.topic_data for partition in topic.partition_data]
    pieces = [piece for records in batches for piece in contents(records)]
    unread = tuple(unread for _, unread in pieces if unread)
    return _Seen("kafka.produce", tuple(piece for piece, _ in pieces), body.acks != 0, unread)


def _name(topic: Any) -> bytes:
    """A topic's name, or its id as text where the version knows it by that."""
    return getattr(topic, "name", None) or getattr(topic, "topic_id", None) or b""


def _offsets(body: Any) -> Iterator[bytes]:
    for topic in body.topics:
        for partition in topic.partitions:
            yield b"%b:%d:%d" % (_name(topic), partition.partition_index, partition.committed_offset)


def _commit_offsets(body: Any) -> _Seen:
    return _Seen("kafka.offset_commit", (body.group_id or b"", *_offsets(body)))


def _commit_offsets_in_transaction(body: Any) -> _Seen:
    groups = (body.group_id or b"", body.transactional_id or b"")
    return _Seen("kafka.txn_offset_commit", (*groups, *_offsets(body)))


def _end_transaction(body: Any) -> _Seen:
    site = "kafka.commit_transaction" if body.committed else "kafka.abort_transaction"
    return _Seen(site, (body.transactional_id or b"",))


def _init_producer_id(body: Any) -> _Seen | None:
    if body.transactional_id is None:
        return None
    return _Seen("kafka.init_producer_id", (body.transactional_id,))


def _leave_group(body: Any) -> _Seen:
    members = [member.member_id for member in body.members] if hasattr(body, "members") else [body.member_id]
    return _Seen("kafka.leave_group", (body.group_id or b"", *(member or b"" for member in members)))


def _heartbeat(body: Any) -> _Seen | None:
    """Heartbeats of the newer groups say with a negative epoch that the member leaves."""
    if body.member_epoch not in _LEAVE_EPOCHS:
        return None
    return _Seen("kafka.leave_group", (body.group_id or b"", body.member_id or b""))


def _create_topics(body: Any) -> _Seen | None:
    if getattr(body, "validate_only", False):
        return None
    return _Seen("kafka.create_topics", tuple(map(_name, body.topics)))


def _delete_topics(body: Any) -> _Seen:
    names = map(_name, body.topics) if hasattr(body, "topics") else (name or b"" for name in body.topic_names)
    return _Seen("kafka.delete_topics", tuple(names))


def _delete_groups(body: Any) -> _Seen:
    return _Seen("kafka.delete_groups", tuple(name or b"" for name in body.groups_names))


def _acknowledge(body: Any) -> _Seen | None:
    """Acknowledgements of a share group, sent alone or along with its next fetch."""
    pieces = [
        b"%b:%d:%d-%d" % (_name(topic), partition.partition_index, batch.first_offset, batch.last_offset)
        for topic in body.topics
        for partition in topic.partitions
        for batch in partition.acknowledgement_batches
    ]
    return _Seen("kafka.share_acknowledge", (body.group_id or b"", *pieces)) if pieces else None


_EFFECTS: Final[Mapping[int, Callable[[Any], _Seen | None]]] = {
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


class _Awaited(NamedTuple):
    number: int
    api: int
    version: int


class _Lost(Exception):
    """These bytes cannot be of the protocol; the message says why."""


@dataclass(slots=True)
class _Direction:
    """Where the scan of one direction stands.

    `skip` bytes of a frame that passes are still to come; or else `kept` is the beginning of a frame, of which nothing
    is decided before there are `needed` bytes. `length` says how long the frame at a place is and whether it must be
    kept back, `read` says the steps of one that was, none if it may pass after all.
    """

    length: Callable[[bytes, int], tuple[int, bool]]
    read: Callable[[bytes], list[Step]]
    skip: int = 0
    kept: bytearray = field(default_factory=bytearray)
    needed: int = 0
    closed: bool = False


class Kafka:
    """One connection between a client and a broker; a `chaos.wire.steps.WireProtocol`.

    `not_understood` counts frames that passed though they might have been effects, and batches whose records could not
    be read, by what they were.
    """

    def __init__(self) -> None:
        self.not_understood: Counter[str] = Counter()
        self._requests = _Direction(self._request_length, self._read_request)
        self._replies = _Direction(self._reply_length, self._read_reply)
        self._awaited: dict[int, deque[_Awaited]] = {}
        self._number = 0
        self._first = True
        self._raw = False

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        return iter(self._feed(self._requests, data))

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        return iter(self._feed(self._replies, data))

    def _feed(self, side: _Direction, data: bytes) -> list[Step]:
        side.closed = side.closed or not data
        if side.kept:
            side.kept += data
            if len(side.kept) < side.needed and not (self._raw or side.closed):
                return []
            data = bytes(side.kept)
            side.kept = bytearray()
        steps: list[Step] = []
        start = at = 0  # from start to at it passes
        while at < len(data):
            if self._raw or side.closed:  # half a frame at the end will never be an effect
                at = len(data)
                break
            if side.skip:
                size = min(side.skip, len(data) - at)
                side.skip -= size
                at += size
                continue
            try:
                size, matters = side.length(data, at)
            except _Lost as lost:
                self._raw = True
                self._awaited.clear()
                steps += (*_passing(data[start:at]), Raw(str(lost)))
                start = at
                continue
            if not matters:
                side.skip = size
                continue
            if size > len(data) - at:
                side.kept, side.needed = bytearray(data[at:]), size
                break
            if said := side.read(data[at : at + size]):
                steps += (*_passing(data[start:at]), *said)
                start = at + size
            at += size
        steps += _passing(data[start:at])
        return steps

    def _request_length(self, data: bytes, at: int) -> tuple[int, bool]:
        head = data[at : at + _REQUEST.size]
        if self._first and head.startswith(_TLS):
            raise _Lost("TLS: the client encrypts, nothing can be seen")
        _require_size(head, 8)
        if len(head) < _REQUEST.size:
            return len(head) + 1, True
        size, api, version, _ = _REQUEST.unpack(head)
        if api not in NAMES:
            if self._first:
                raise _Lost(f"not Kafka: the first frame is of an api numbered {api}")
            self.not_understood[f"api {api}"] += 1
            return 4 + size, False
        if api == _SASL_HANDSHAKE and version == 0:
            raise _Lost("SASL handshake v0: the frames after it have no headers")
        self._first = False
        if not knows(api, version):
            self.not_understood[f"{NAMES[api]} v{version}"] += 1
            return 4 + size, False
        return 4 + size, api in _EFFECTS

    def _read_request(self, frame: bytes) -> list[Step]:
        _, api, version, correlation = _REQUEST.unpack_from(frame)
        try:
            seen = _EFFECTS[api](read_request(api, version, frame))
        except Malformed:
            self.not_understood[f"{NAMES[api]} v{version}, malformed"] += 1
            return []
        if seen is None:
            return []
        self.not_understood.update(seen.not_understood)
        self._number += 1
        if seen.answered:
            self._awaited.setdefault(correlation, deque()).append(_Awaited(self._number, api, version))
        effect = Effect(self._number, seen.site, seen.contents, frame, answered=seen.answered)
        return [effect, Delivered(self._number)]

    def _reply_length(self, data: bytes, at: int) -> tuple[int, bool]:
        head = data[at : at + _REPLY.size]
        _require_size(head, 4)
        if len(head) < _REPLY.size:
            return len(head) + 1, True
        size, correlation = _REPLY.unpack(head)
        return 4 + size, correlation in self._awaited

    def _read_reply(self, frame: bytes) -> list[Step]:
        [correlation] = struct.unpack_from(">i", frame, 4)
        waiting = self._awaited[correlation]
        effect = waiting.popleft()
        if not waiting:
            del self._awaited[correlation]
        return [Answer(effect.number, _outcome(effect, frame), frame)]


def _passing(data: bytes) -> list[Step]:
    return [Pass(data)] if data else []


def _require_size(head: bytes, least: int) -> None:
    """Say what is lost if this size can be no frame's."""
    if len(head) >= 4:  # noqa: PLR2004 - the size itself
        size = int.from_bytes(head[:4], "big", signed=True)
        if not least <= size <= LIMIT:
            raise _Lost(f"not Kafka: a frame of {size} bytes, beginning {head!r}")


def _outcome(effect: _Awaited, frame: bytes) -> Outcome:
    try:
        body = read_reply(effect.api, effect.version, frame)
    except Malformed:
        return "unclear"
    if effect.api == _SHARE_FETCH:  # the other codes are about what was fetched
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
