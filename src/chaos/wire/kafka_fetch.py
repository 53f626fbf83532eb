"""Which records of a Fetch reply hold a key that somebody looks for, and at which offsets they are.

A batch is looked at as a whole, unpacked, before it is taken apart: one search for ten thousand records of which nobody
looks for any. A broker ends a partition wherever the client's limit is, so half a batch at its end is usual.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

from chaos.wire.kafka_evidence import partition
from chaos.wire.kafka_records import LIMIT, Unreadable, batch_at, unpacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.kafka_evidence import Topics
    from chaos.wire.kafka_records import Batch

    Wanted: TypeAlias = Callable[[bytes], bool]

FETCH: Final = 1
LARGEST: Final = 1 << 20
"""Replies that are longer than this are not read."""

_SIZED: Final = 12  # bytes of a batch up to its size, which does not count them


class Fetched:
    """What was wanted in one reply: `records`, and what `unread` there was."""

    def __init__(self, body: Any, topics: Topics, wanted: Wanted) -> None:
        self.records: list[tuple[str, int, bytes]] = []
        self.unread: list[str] = []
        self._wanted = wanted
        self._room = LIMIT
        for topic in body.responses:
            name = getattr(topic, "topic", None) or getattr(topic, "topic_id", None) or b""
            for one in topic.partitions:
                if one.records:
                    self._read(one.records, partition(topics, name, one.partition_index))

    def _read(self, section: bytes, where: str) -> None:
        at = 0
        try:
            while not _is_cut_off(section, at):
                batch = batch_at(section, at)
                at = batch.end
                if not batch.control:
                    self._look_into(batch, section, where)
        except Unreadable:
            self.unread.append("fetched record batch")

    def _look_into(self, batch: Batch, section: bytes, where: str) -> None:
        try:
            piece = unpacked(batch, section, self._room)
            self._room -= 0 if batch.codec == "none" else len(piece)
            if self._wanted(piece):
                self.records += [(where, offset, record) for offset, record in self._records(batch, piece)]
        except Unreadable:
            self.unread.append(f"fetched record batch, compression {batch.codec}")

    def _records(self, batch: Batch, piece: bytes) -> Iterator[tuple[int, bytes]]:
        """Those that are wanted: the offset of each, and the record without its length."""
        at = 0
        while at < len(piece):
            length, at = _varint(piece, at)
            if not 0 < length <= len(piece) - at:
                raise Unreadable
            record = piece[at : at + length]
            at += length
            if self._wanted(record):
                _, behind = _varint(record, 1)  # its attributes are a byte, then comes its time
                delta, _ = _varint(record, behind)
                if not 0 <= delta < batch.records:
                    raise Unreadable
                yield batch.base + delta, record


def _is_cut_off(section: bytes, at: int) -> bool:
    left = len(section) - at
    return left < _SIZED or left < _SIZED + int.from_bytes(section[at + 8 : at + _SIZED], "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of Kafka's variable length, its sign in the last bit, and where it ends."""
    value = shift = 0
    try:
        while (byte := data[at]) >= 0x80 and shift < 63:  # noqa: PLR2004 - the bit that says that more follows; ten bytes
            value |= (byte & 0x7F) << shift
            shift += 7
            at += 1
    except IndexError:
        raise Unreadable from None
    value |= byte << shift
    return (value >> 1) ^ -(value & 1), at + 1
