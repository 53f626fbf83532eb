"""What is in the record batches of a Kafka request, whatever they are compressed with.

A batch is one piece: its records as they are in it, unpacked. Keys are found in that as text or as the bytes of a UUID;
to take the records apart would cost microseconds for each, and a producer sends them by the ten thousand.
"""

from __future__ import annotations

import mmap
import struct
from typing import TYPE_CHECKING, Final

from cramjam import DecompressionError, gzip, lz4, snappy, zstd

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

LIMIT: Final = 100 << 20
"""No more than this is unpacked from one request."""

_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd", "codec 5", "codec 6", "codec 7")
_STREAMS: Final = {"gzip": gzip.decompress_into, "lz4": lz4.decompress_into, "zstd": zstd.decompress_into}
_MAGIC: Final = 2
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEAD: Final = 16


class Unreadable(Exception):
    """These are no records, or nothing here unpacks them."""


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
                end, codec = _batch(records, at)
                packed = records[at + _BATCH.size : end]
                piece = packed if codec == "none" else _unpack(codec, packed, room)
            except (Unreadable, DecompressionError):
                yield records[at:end], f"{codec} record batch".lstrip()
            else:
                room -= 0 if codec == "none" else len(piece)
                yield piece, ""
            at = end


def _batch(data: bytes, at: int) -> tuple[int, str]:
    """Where the batch ends, and its codec."""
    if len(data) - at < _BATCH.size:
        raise Unreadable
    _, length, _, magic, _, attributes, *_ = _BATCH.unpack_from(data, at)
    end = at + 12 + length
    if magic != _MAGIC or not at + _BATCH.size <= end <= len(data):
        raise Unreadable
    return end, _CODECS[attributes & 7]


def _unpack(codec: str, data: bytes, room: int) -> bytes:
    """What was packed; more than `room` bytes are unreadable, and take no memory beyond that."""
    if codec == "snappy":
        return b"".join(_snappy(data, room))
    if codec not in _STREAMS or not room:
        raise Unreadable
    with mmap.mmap(-1, room) as buffer:  # memory that is there from when it is written to
        return buffer[: _STREAMS[codec](data, buffer)]


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
