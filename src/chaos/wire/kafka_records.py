"""What is in the record batches of a Kafka request or reply, whatever they are compressed with.

A batch is one piece: its records as they are in it, unpacked. Keys are found in that as text or as the bytes of a UUID;
to take the records apart would cost microseconds for each, and a producer sends them by the ten thousand.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final, NamedTuple

from cramjam import DecompressionError, gzip, lz4, snappy, zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT: Final = 100 << 20
"""No more than this is unpacked from one frame."""

_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd", "codec 5", "codec 6", "codec 7")
_STREAMS: Final = {"gzip": gzip.decompress_into, "lz4": lz4.decompress_into, "zstd": zstd.decompress_into}
_CONTROL: Final = 0x20
_MAGIC: Final = 2
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEAD: Final = 16


class Unreadable(Exception):
    """These are no records, or nothing here unpacks them."""


class Batch(NamedTuple):
    """What the head of a batch says."""

    begins: int  # where its records do, in what it was read from
    end: int
    codec: str
    base: int  # the offset of its first record
    records: int  # so many
    control: bool  # it ends a transaction and is nobody's record


def contents(sections: Iterable[bytes]) -> Iterator[tuple[bytes, str]]:
    """A piece for each batch in a request's `sections`, one of which there is for each partition.

    A batch that cannot be read is a piece as it is, and named by the second of the pair, which is empty otherwise.
    """
    room = LIMIT
    for records in sections:
        at = 0
        while at < len(records):
            codec = ""
            end = len(records)
            try:
                batch = batch_at(records, at)
                end, codec = batch.end, batch.codec
                piece = unpacked(batch, records, room)
            except Unreadable:
                yield records[at:end], f"{codec} record batch".lstrip()
            else:
                room -= 0 if codec == "none" else len(piece)
                yield piece, ""
            at = end


def count(records: bytes) -> int:
    """How many records there are in the batches of a section.

    Raises:
        Unreadable: nobody knows.
    """
    at = total = 0
    while at < len(records):
        batch = batch_at(records, at)
        if batch.records < 1:
            raise Unreadable
        at, total = batch.end, total + batch.records
    return total


def batch_at(data: bytes, at: int) -> Batch:
    """The batch that begins there.

    Raises:
        Unreadable: none does, or not all of it is there.
    """
    if len(data) - at < _BATCH.size:
        raise Unreadable
    base, length, _, magic, _, attributes, last, *_ = _BATCH.unpack_from(data, at)
    begins, end = at + _BATCH.size, at + 12 + length
    if magic != _MAGIC or not begins <= end <= len(data):
        raise Unreadable
    return Batch(begins, end, _CODECS[attributes & 7], base, last + 1, bool(attributes & _CONTROL))


def unpacked(batch: Batch, data: bytes, room: int) -> bytes:
    """The records of a batch; more than `room` bytes were unreadable, and take no memory beyond that.

    Raises:
        Unreadable: they cannot be unpacked.
    """
    codec, packed = batch.codec, data[batch.begins : batch.end]
    if codec == "none":
        return packed
    try:
        if codec == "snappy":
            return b"".join(_snappy(packed, room))
        if codec not in _STREAMS or not room:
            raise Unreadable
        with mmap.mmap(-1, room) as buffer:  # memory that is there from when it is written to
            return buffer[: _STREAMS[codec](packed, buffer)]
    except DecompressionError:
        raise Unreadable from None


def _snappy(data: bytes, room: int) -> Iterator[bytes]:
    """The blocks of the Java client's framing, or the only one, as librdkafka writes it."""
    at, framed = (_XERIAL_HEAD, True) if data.startswith(_XERIAL) else (0, False)
    while at < len(data):
        size = len(data)
        if framed:
            size = int.from_bytes(data[at : at + 4], "big")
            at += 4
        block = data[at : at + size]
        if len(block) < size or (length := snappy.decompress_raw_len(block)) > room:
            raise Unreadable
        room -= length
        at += size
        yield bytes(snappy.decompress_raw(block))
