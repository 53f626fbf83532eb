"""Replies of a broker that refuses: the request's own topics, partitions and members, each with the error.

They are made of kio's schemas and written by kio: what they are made of, other than names, is ours.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import io
import struct
import types
import typing
import uuid
from typing import TYPE_CHECKING, Any, Final

from kio.index import load_response_schema
from kio.schema.errors import ErrorCode
from kio.serial import entity_writer

from chaos.wire.kafka_bodies import read_request

if TYPE_CHECKING:
    from chaos.wire.steps import Effect

_HEAD: Final = struct.Struct(">ihhi")
_MIRRORED: Final = {
    "responses": ("topic_data", "topics", "topic_names"),
    "partition_responses": ("partition_data",),
    "topics": ("topics",),
    "partitions": ("partitions",),
    "members": ("members",),
    "results": ("groups_names",),
}
"""Lists in replies, and what they are called in requests; all others are empty."""
_SAME: Final = ("name", "topic_id", "index", "partition_index", "member_id", "group_instance_id", "group_id")
_NONE: Final = {"base_offset": -1, "producer_id": -1, "producer_epoch": -1}
_SUCH_AS: Final = (
    "NOT_COORDINATOR, COORDINATOR_LOAD_IN_PROGRESS, NOT_LEADER_OR_FOLLOWER, REBALANCE_IN_PROGRESS, UNKNOWN_MEMBER_ID"
)


def refusal(effect: Effect, error: str) -> bytes:
    """The frame of a reply to `effect` that says `error` wherever it says one.

    Raises:
        ValueError: there is no such error, or the client expects no reply.
    """
    code = {one.name.upper(): one for one in ErrorCode if one is not ErrorCode.none}.get(error)
    if code is None:
        raise ValueError(f"{error!r} cannot be said to {effect.site}; any error of Kafka's can, such as {_SUCH_AS}")
    if not effect.answered:
        raise ValueError(f"nothing can be said to this {effect.site}: its client expects no reply (acks=0)")
    _, api, version, correlation = _HEAD.unpack_from(effect.data)
    schema = load_response_schema(api, version)
    header = schema.__header_schema__
    frame = io.BytesIO()
    entity_writer(header)(frame, header(correlation_id=correlation))
    entity_writer(schema)(frame, _entity(schema, read_request(api, version, effect.data), code))
    return struct.pack(">i", frame.tell()) + frame.getvalue()


def _entity(schema: Any, request: Any, error: ErrorCode) -> Any:
    """An entity of this schema, in answer to that part of a request, or None where it answers none."""
    hints = typing.get_type_hints(schema)
    fields = [field for field in dataclasses.fields(schema) if "tag" not in field.metadata]
    return schema(**{field.name: _value(field, hints[field.name], request, error) for field in fields})


def _value(field: Any, hint: Any, request: Any, error: ErrorCode) -> Any:
    optional = typing.get_origin(hint) in (types.UnionType, typing.Union)
    if optional:
        [hint] = [one for one in typing.get_args(hint) if one is not types.NoneType]
    if typing.get_origin(hint) is tuple or dataclasses.is_dataclass(hint):
        return None if optional else _several(field.name, hint, request, error)
    kafka_type = field.metadata["kafka_type"]
    if field.name.endswith("error_code"):
        return error if kafka_type == "error_code" else int(error)
    if field.name in _SAME:
        return _same(kafka_type, getattr(request, field.name, None), optional=optional)
    if field.default is not dataclasses.MISSING:
        return field.default
    return None if optional else _NONE.get(field.name, _zero(kafka_type))


def _several(name: str, hint: Any, request: Any, error: ErrorCode) -> Any:
    """A list, mirrored if the request has such a one, or an entity that answers nothing."""
    if dataclasses.is_dataclass(hint):
        return _entity(hint, None, error)
    element = typing.get_args(hint)[0]
    return tuple(_entity(element, one, error) for one in _mirrored(name, request))


def _mirrored(name: str, request: Any) -> list[Any]:
    for theirs in _MIRRORED.get(name, ()):
        if hasattr(request, theirs):
            elements: list[Any] = getattr(request, theirs)
            if theirs in {"topic_names", "groups_names"}:
                return [types.SimpleNamespace(name=one, group_id=one) for one in elements]
            return elements
    return []


def _same(kafka_type: str, value: Any, *, optional: bool) -> Any:
    """What `kafka_bodies` read, as kio writes it."""
    if value is None:
        return None if optional else _zero(kafka_type)
    if kafka_type == "uuid":
        return uuid.UUID(value.decode())
    return value.decode() if isinstance(value, bytes) else value


def _zero(kafka_type: str) -> Any:
    zeros: dict[str, Any] = {"string": "", "bytes": b"", "records": b"", "bool": False, "uuid": None}
    return zeros.get(kafka_type, dt.timedelta() if kafka_type.startswith("timedelta") else 0)
