"""Kafka frames of any version, encoded by kio."""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import struct
import types
import typing
from typing import Any

from kio.index import load_request_schema, load_response_schema
from kio.records.schema import NewRecordBatch, Record, RecordHeader
from kio.records.writers import write_new_batch
from kio.schema.errors import ErrorCode
from kio.schema.index import api_key_map, schema_name_map
from kio.serial import entity_reader, entity_writer
from kio.static.primitive import TZAwareMicros, i8, i16, i32, i64


def versions(api: int) -> list[int]:
    """All that kio has."""
    return sorted(schema_name_map[api_key_map[api]])


def request(api: int, version: int, correlation: int = 1, **values: Any) -> bytes:
    """A frame; `values` that this version does not have are left out, others are zero or one element that is."""
    schema = load_request_schema(api, version)
    header = {"request_api_key": api, "request_api_version": version, "correlation_id": correlation}
    return _frame(schema, {**header, "client_id": "test"}, make(schema, values, ErrorCode.none))


def reply(api: int, version: int, error: int = 0, correlation: int = 1, **values: Any) -> bytes:
    """A frame that says this error wherever it says one; `values` as in `request`."""
    schema = load_response_schema(api, version)
    return _frame(schema, {"correlation_id": correlation}, make(schema, values, ErrorCode(error)))


def read_reply(api: int, version: int, frame: bytes) -> tuple[int, Any]:
    """The correlation id and the entity, read to the last byte by kio."""
    schema = load_response_schema(api, version)
    data, at = memoryview(frame), 4
    header, size = entity_reader(schema.__header_schema__)(data, at)
    entity, more = entity_reader(schema)(data, at + size)
    assert (len(frame) - 4, at + size + more) == (int.from_bytes(frame[:4], "big"), len(frame))
    return header.correlation_id, entity


def batch(*records: tuple[bytes | None, bytes | None, dict[bytes, bytes]]) -> bytes:
    """A batch of key, value and headers each, not compressed."""
    now = TZAwareMicros.parse(dt.datetime.now(dt.UTC).replace(microsecond=0))
    made = [
        Record(
            attributes=i8(0),
            timestamp=now,
            offset=i64(number),
            key=key,
            value=value,
            headers=tuple(RecordHeader(key=name, value=header) for name, header in headers.items()),
        )
        for number, (key, value, headers) in enumerate(records)
    ]
    buffer = io.BytesIO()
    write_new_batch(
        buffer,
        NewRecordBatch(
            producer_id=i64(-1), producer_epoch=i16(-1), base_sequence=i32(-1), records=tuple(made), attributes=i16(0)
        ),
    )
    return buffer.getvalue()


def make(schema: Any, values: dict[str, Any], error: ErrorCode) -> Any:
    """An entity of this schema."""
    hints = typing.get_type_hints(schema)
    return schema(
        **{
            field.name: _value(hints[field.name], field, values, error)
            for field in dataclasses.fields(schema)
            if "tag" not in field.metadata or field.name in values
        }
    )


def _value(hint: Any, field: Any, values: dict[str, Any], error: ErrorCode) -> Any:
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        if field.name not in values:
            return None
        [hint] = [one for one in typing.get_args(hint) if one is not types.NoneType]
    if typing.get_origin(hint) is tuple:
        element = typing.get_args(hint)[0]
        if dataclasses.is_dataclass(element):
            return tuple(make(element, one, error) for one in values.get(field.name, [{}]))
        return tuple(values.get(field.name, ()))
    if dataclasses.is_dataclass(hint):
        return make(hint, values.get(field.name, {}), error)
    if field.name == "acknowledge_error_code":
        return i16(error)
    zeros = {"error_code": error, "bool": False, "string": "", "records": b"", "bytes": b""}
    zero = dt.timedelta() if "timedelta" in field.metadata["kafka_type"] else 0
    return values.get(field.name, zeros.get(field.metadata["kafka_type"], zero))


def _frame(schema: Any, header: dict[str, Any], entity: Any) -> bytes:
    buffer = io.BytesIO()
    header_schema = schema.__header_schema__
    entity_writer(header_schema)(buffer, header_schema(**header))
    entity_writer(schema)(buffer, entity)
    return struct.pack(">i", buffer.tell()) + buffer.getvalue()
