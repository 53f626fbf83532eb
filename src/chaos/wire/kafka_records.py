"""What is in the record batches of a Kafka request, whatever they are compressed with.

gzip is the standard library's; so is zstd from Python 3.14 on, before that it is unpacked if `backports.zstd` is
installed. Snappy (bare, as librdkafka writes it, and in the framing of the Java client) and LZ4 are unpacked here: they
are small, and the standard library has nothing for them.
"""

from __future__ import annotations

import contextlib
import importlib
import struct
import zlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT: Final = 100 << 20
"""No more than this is unpacked from one batch."""

_BATCH: Final = struct.Struct(">qiibIhiqqqhii")
_CODECS: Final = ("none", "gzip", "snappy", "lz4", "zstd", "codec 5", "codec 6", "codec 7")
_MAGIC: Final = 2
_XERIAL: Final = b"\x82SNAPPY\0"
_LZ4: Final = b"\x04\x22\x4d\x18"


class Unreadable(Exception):
    """These are no records, or nothing here unpacks them."""


def contents(records: bytes) -> Iterator[tuple[bytes, str]]:
    """A piece for each record: key, zero byte, value, and after a zero byte each the values of headers.

    A batch that cannot be read is one piece as it is, and named by the second of the pair, which is empty otherwise.
    """
    at = 0
    while at < len(records):
        try:
            end, codec, count, packed = _batch(records, at)
        except Unreadable:
            yield records[at:], "record batch"
            return
        try:
            pieces = list(_records(_unpack(codec, packed), count))
        except (Unreadable, IndexError, struct.error, zlib.error, ValueError):
            yield records[at:end], f"{_CODECS[codec]} record batch"
        else:
            yield from ((piece, "") for piece in pieces)
        at = end


def _batch(data: bytes, at: int) -> tuple[int, int, int, bytes]:
    """Where the batch ends, its codec, the number of its records, and these as they came."""
    if len(data) - at < _BATCH.size:
        raise Unreadable
    _, length, _, magic, _, attributes, *_, count = _BATCH.unpack_from(data, at)
    end = at + 12 + length
    if magic != _MAGIC or not at + _BATCH.size <= end <= len(data):
        raise Unreadable
    return end, attributes & 7, count, data[at + _BATCH.size : end]


def _records(data: bytes, count: int) -> Iterator[bytes]:
    at = 0
    for _ in range(count):
        size, at = _varint(data, at)
        end = at + size
        if size <= 0 or end > len(data):
            raise Unreadable
        at += 1  # attributes
        for _ in ("timestamp", "offset"):
            _, at = _varint(data, at)
        key, at = _sized(data, at)
        value, at = _sized(data, at)
        headers, at = _varint(data, at)
        pieces = [key, value]
        for _ in range(headers):
            _, at = _sized(data, at)
            value, at = _sized(data, at)
            pieces.append(value)
        if at != end:
            raise Unreadable
        yield b"\0".join(pieces)
    if at != len(data):
        raise Unreadable


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _varint(data, at)
    if size < -1 or at + size > len(data):
        raise Unreadable
    return (data[at : at + size], at + size) if size > 0 else (b"", at)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, at = _unsigned(data, at)
    return (value >> 1) ^ -(value & 1), at


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return value, at
    raise Unreadable


def _unpack(codec: int, data: bytes) -> bytes:
    name = _CODECS[codec]
    if name == "none":
        return data
    if name == "gzip":
        return zlib.decompressobj(wbits=31).decompress(data, LIMIT)
    if name == "snappy":
        return _snappy(data)
    if name == "lz4":
        return _lz4(data)
    if name == "zstd" and _zstd is not None:
        try:
            return bytes(_zstd.ZstdDecompressor().decompress(data, LIMIT))
        except _zstd.ZstdError as error:
            raise Unreadable from error
    raise Unreadable


def _find_zstd() -> Any:
    for name in ("compression.zstd", "backports.zstd"):
        with contextlib.suppress(ImportError):
            return importlib.import_module(name)
    return None


_zstd: Final = _find_zstd()


def _snappy(data: bytes) -> bytes:
    if not data.startswith(_XERIAL):
        return bytes(_snappy_block(data, 0, len(data), bytearray()))
    unpacked, at = bytearray(), 16
    while at < len(data):
        [size] = struct.unpack_from(">I", data, at)
        at += 4
        unpacked += _snappy_block(data, at, at + size, bytearray())
        at += size
        if len(unpacked) > LIMIT:
            raise Unreadable
    return bytes(unpacked)


def _snappy_block(data: bytes, at: int, end: int, out: bytearray) -> bytearray:
    if end > len(data):
        raise Unreadable
    length, at = _unsigned(data, at)
    while at < end:
        tag = data[at]
        at += 1
        size = (tag >> 2) + 1
        match tag & 3:
            case 0:
                if size > 60:  # noqa: PLR2004 - one to four bytes of length follow
                    more = size - 60
                    size = int.from_bytes(data[at : at + more], "little") + 1
                    at += more
                out += data[at : at + size]
                at += size
                continue
            case 1:
                size, distance = 4 + (tag >> 2 & 7), (tag >> 5) << 8 | data[at]
                at += 1
            case width:
                width = 2 if width == 2 else 4  # noqa: PLR2004 - the tag's third and fourth form
                distance = int.from_bytes(data[at : at + width], "little")
                at += width
        _copy(out, distance, size)
    if len(out) != length:
        raise Unreadable
    return out


def _lz4(data: bytes) -> bytes:
    if not data.startswith(_LZ4):
        raise Unreadable
    flags = data[4]
    at = 7 + (8 if flags & 8 else 0) + (4 if flags & 1 else 0)
    out = bytearray()
    while size := struct.unpack_from("<I", data, at)[0]:
        at += 4
        end = at + (size & 0x7FFFFFFF)
        if end > len(data):
            raise Unreadable
        if size >> 31:
            out += data[at:end]
        else:
            _lz4_block(data, at, end, out)
        at = end + (4 if flags & 0x10 else 0)
    return bytes(out)


def _lz4_block(data: bytes, at: int, end: int, out: bytearray) -> None:
    while True:
        token = data[at]
        size, at = _lz4_size(data, at + 1, token >> 4)
        out += data[at : at + size]
        at += size
        if at >= end:
            return
        distance = data[at] | data[at + 1] << 8
        size, at = _lz4_size(data, at + 2, token & 15)
        _copy(out, distance, size + 4)


def _lz4_size(data: bytes, at: int, size: int) -> tuple[int, int]:
    more = 255 if size == 15 else 0  # noqa: PLR2004 - all bits set: more bytes of length follow
    while more == 255:  # noqa: PLR2004 - likewise
        more = data[at]
        size, at = size + more, at + 1
    return size, at


def _copy(out: bytearray, distance: int, size: int) -> None:
    """Repeat what was unpacked `distance` bytes ago; it may run into what it writes."""
    if not 0 < distance <= len(out) or len(out) + size > LIMIT:
        raise Unreadable
    start = len(out) - distance
    piece = out[start : start + size]
    out += (piece * (size // len(piece) + 1))[:size]
