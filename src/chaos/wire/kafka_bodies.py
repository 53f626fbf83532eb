"""Bodies of Kafka requests and replies, read by kio's schemas.

kio's own decoder cannot be given bytes that nobody vouches for: it reserves memory for as many elements as an array
says it has, and a wrong length ends the whole process (kio 0.6.5; ten bytes of a `DeleteGroups` are enough). So only
its schemas are used. What is read is plain: strings and byte strings are `bytes`, ids their uuid text, times and error
codes numbers. Of tagged fields those that name brokers are read; no effect is told by one.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import types
import typing
import uuid
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kio.index import load_request_schema, load_response_schema
from kio.schema.index import api_key_map, schema_name_map

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    _Read: TypeAlias = "Callable[[_Bytes], Any]"

NAMES: Final = api_key_map
_ENDPOINTS: Final = "node_endpoints"


class Malformed(Exception):
    """These bytes are not what the schema says."""


def knows(api: int, version: int) -> bool:
    """Whether there is a schema for this version."""
    return version in schema_name_map[NAMES[api]]


def read_request(api: int, version: int, frame: bytes) -> Any:
    """The body of a whole request, its four bytes of size included."""
    read, header = _request(api, version)
    data = _Bytes(frame, 12)
    data.sized(data.number(_INT16))  # the client's id
    if header == 2:  # noqa: PLR2004 - headers are numbered by the protocol
        data.skip_tags()
    return read(data)


def read_reply(api: int, version: int, frame: bytes, last: str = "") -> Any:
    """The body of a whole reply, its four bytes of size included; nothing behind the field named `last` is read."""
    read, header = _reply(api, version, last)
    data = _Bytes(frame, 8)
    if header == 1:
        data.skip_tags()
    return read(data)


@functools.cache
def _request(api: int, version: int) -> tuple[_Read, int]:
    schema = load_request_schema(api, version)
    return _entity(schema), schema.__header_schema__.__version__


@functools.cache
def _reply(api: int, version: int, last: str) -> tuple[_Read, int]:
    schema = load_response_schema(api, version)
    return _entity(schema, last), schema.__header_schema__.__version__


class _Bytes:
    """A place in a frame."""

    __slots__ = ("at", "data")

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if not 0 <= size <= len(self.data) - self.at:
            raise Malformed
        self.at += size
        return self.data[self.at - size : self.at]

    def sized(self, size: int) -> bytes | None:
        """The next `size` bytes; -1 stands for null."""
        return None if size == -1 else self.take(size)

    def number(self, form: struct.Struct) -> int:
        """A number of fixed size."""
        return int(form.unpack(self.take(form.size))[0])

    def uuid(self) -> bytes | None:
        """The text of an id; all zeros stand for null."""
        value = uuid.UUID(bytes=self.take(16))
        return str(value).encode() if value.int else None

    def unsigned(self) -> int:
        """A number of one to five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            [byte] = self.take(1)
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
                return value
        raise Malformed

    def many(self, count: int, read: _Read) -> list[Any]:
        """`count` elements; none is shorter than a byte, which bounds the work by the frame."""
        if not -1 <= count <= len(self.data) - self.at:
            raise Malformed
        return [read(self) for _ in range(count)]  # a null array is as good as an empty one

    def skip_tags(self) -> None:
        """Go on behind the tagged fields."""
        for _ in self.tags():
            pass

    def tags(self) -> Iterator[tuple[int, _Bytes]]:
        """The tagged fields: their numbers and what they say."""
        for _ in range(self.unsigned()):
            tag = self.unsigned()
            yield tag, _Bytes(self.take(self.unsigned()), 0)


_INT16: Final = struct.Struct(">h")
_INT32: Final = struct.Struct(">i")
_NUMBERS: Final = {
    **dict.fromkeys(("int8", "bool"), struct.Struct(">b")),
    **dict.fromkeys(("int16", "error_code"), _INT16),
    **dict.fromkeys(("int32", "timedelta_i32"), _INT32),
    **dict.fromkeys(("int64", "timedelta_i64", "datetime_i64"), struct.Struct(">q")),
    "uint16": struct.Struct(">H"),
}


def _entity(schema: Any, last: str = "") -> _Read:
    """A reader of entities of this schema, up to the field named `last` if one is."""
    hints, flexible = typing.get_type_hints(schema), bool(schema.__flexible__)
    reads: list[tuple[str, _Read]] = []
    tagged: dict[int, tuple[str, _Read]] = {}
    for field in dataclasses.fields(schema):
        if "tag" not in field.metadata:
            read_field = _field(hints[field.name], field.metadata.get("kafka_type"), flexible=flexible)
            reads.append((field.name, read_field))
        elif field.name == _ENDPOINTS:
            tagged[field.metadata["tag"]] = (field.name, _field(hints[field.name], None, flexible=flexible))
        if field.name == last:
            break
    complete = not last

    def read(data: _Bytes) -> SimpleNamespace:
        entity = SimpleNamespace(**{name: read_field(data) for name, read_field in reads})
        if flexible and complete:
            for tag, value in data.tags():
                if tag in tagged:
                    name, read_field = tagged[tag]
                    setattr(entity, name, read_field(value))
        return entity

    return read


def _field(hint: Any, kafka_type: str | None, *, flexible: bool) -> _Read:
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        [hint] = [one for one in typing.get_args(hint) if one is not types.NoneType]
    if typing.get_origin(hint) is tuple:
        element = _field(typing.get_args(hint)[0], kafka_type, flexible=flexible)
        if flexible:
            return lambda data: data.many(data.unsigned() - 1, element)
        return lambda data: data.many(data.number(_INT32), element)
    if kafka_type is None:
        entity = _entity(hint)
        return (lambda data: entity(data) if data.take(1) == b"\1" else None) if optional else entity
    return _primitive(kafka_type, flexible=flexible)


def _primitive(kafka_type: str, *, flexible: bool) -> _Read:
    if kafka_type in _NUMBERS:
        form = _NUMBERS[kafka_type]
        return lambda data: data.number(form)
    if kafka_type == "uuid":
        return _Bytes.uuid
    if flexible:
        return lambda data: data.sized(data.unsigned() - 1)
    size = _INT16 if kafka_type == "string" else _INT32
    return lambda data: data.sized(data.number(size))
