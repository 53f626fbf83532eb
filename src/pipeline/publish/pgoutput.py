"""What a logical slot says: messages of pgoutput, protocol version 1, from bytes to values. No I/O.

Version 1 sends a transaction when it was committed, whole and without others in between: `Begin`, its changes in the
order in which they were made, `Commit`. A `Relation` comes before the first change of its table, and again when the
table was altered. A publication of inserts (``publish = 'insert'``) sends no other changes; where one comes all the
same, or a message that says nothing about rows, it is `Skipped` by its kind, for whoever counts them.

What is not understood in full is `Undecodable`: a relay that guesses loses events, one that stops loses none.

Source: PostgreSQL's documentation, "Logical Replication Message Formats" and "Streaming Replication Protocol".
"""

from __future__ import annotations

import struct
from struct import Struct
from typing import NamedTuple, TypeAlias

_INT16, _INT32, _SIZE, _ROW = Struct("!H"), Struct("!I"), Struct("!i"), Struct("!IBH")
_BEGIN, _COMMIT, _MESSAGE = Struct("!QqI"), Struct("!BQQq"), Struct("!BQ")
_NULL, _TEXT, _NEW = b"ntN"
_SKIPPED = b"OYUDT"  # origin, type, update, delete, truncate
_EXCERPT = 40


class Begin(NamedTuple):
    """A transaction begins that was committed at `lsn`. Times are microseconds since 2000-01-01 in UTC."""

    lsn: int
    committed_at: int
    xid: int


class Commit(NamedTuple):
    """The transaction is over. To say that it was dealt with is to confirm `end_lsn`, the end of its last record.

    Whoever confirms `lsn`, its beginning, is sent the transaction again at each new start.
    """

    lsn: int
    end_lsn: int
    committed_at: int


class Column(NamedTuple):
    """A column of a table; `type_id` is an oid of ``pg_type``."""

    name: str
    type_id: int
    modifier: int
    key: bool


class Relation(NamedTuple):
    """What a table looks like from here on; `replica_identity` is one of ``d n f i``."""

    id: int
    namespace: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]


class Insert(NamedTuple):
    """A new row: the text of each column, in the order of its relation's columns, None for null."""

    relation: Relation
    values: tuple[bytes | None, ...]


class Message(NamedTuple):
    """What somebody has put into the log by ``pg_logical_emit_message``."""

    transactional: bool
    lsn: int
    prefix: str
    content: bytes


class Skipped(NamedTuple):
    """A message that is nothing to us, by its kind: one of ``O Y U D T``."""

    kind: str


Change: TypeAlias = "Begin | Commit | Relation | Insert | Message | Skipped"


class Undecodable(Exception):
    """Bytes that are no message of pgoutput's version 1. `why` says what was expected, `data` is the whole message."""

    def __init__(self, why: str, data: bytes) -> None:
        self.why, self.data = why, data
        shown = data[:_EXCERPT].hex(" ") + (" …" if len(data) > _EXCERPT else "")
        super().__init__(
            f"no message of pgoutput, protocol version 1: {why}; it has {len(data)} bytes: {shown or 'none'}. "
            "Nothing was confirmed, so nothing is lost: start again with proto_version '1' and no further options"
        )


class Decoder:
    """Reads the messages of one connection, which has to be fed from its beginning: relations are remembered."""

    def __init__(self) -> None:
        self.relations: dict[int, Relation] = {}

    def decode(self, data: bytes) -> Change:
        """One message, without the header that says where in the log it is.

        Raises:
            Undecodable: it is none, or none of version 1, or of a table that was never described.
        """
        try:
            change, end = self._insert(data) if data[:1] == b"I" else self._decode(data)
        except (struct.error, IndexError):
            raise Undecodable("it ends early", data) from None
        except UnicodeDecodeError as error:
            raise Undecodable(f"a name is no UTF-8 ({error.reason})", data) from error
        if end != len(data):
            raise Undecodable(f"{len(data) - end} bytes are left over", data)
        return change

    def _decode(self, data: bytes) -> tuple[Change, int]:
        kind = data[:1]
        if kind == b"B":
            return Begin(*_BEGIN.unpack_from(data, 1)), 1 + _BEGIN.size
        if kind == b"C":
            flags, *rest = _COMMIT.unpack_from(data, 1)
            if flags:
                raise Undecodable(f"a commit with the flags {flags}, of which there are none", data)
            return Commit(*rest), 1 + _COMMIT.size
        if kind == b"R":
            relation, end = _relation(data)
            self.relations[relation.id] = relation
            return relation, end
        if kind == b"M":
            return _message(data)
        if kind and kind in _SKIPPED:
            return Skipped(kind.decode()), len(data)
        raise Undecodable(f"of the kind {kind!r}, which there is not", data)

    def _insert(self, data: bytes) -> tuple[Insert, int]:
        oid, new, count = _ROW.unpack_from(data, 1)
        relation = self.relations.get(oid)
        if relation is None:
            raise Undecodable(f"a row of the relation {oid}, which was not described before", data)
        if new != _NEW or count != len(relation.columns):
            raise Undecodable(f"expected a new row of {len(relation.columns)} columns of {relation.name}", data)
        at, size = 1 + _ROW.size, _INT32.unpack_from
        values: list[bytes | None] = []
        for _ in range(count):
            kind = data[at]
            if kind == _TEXT:
                start = at + 5
                at = start + size(data, at + 1)[0]
                values.append(data[start:at])
            elif kind == _NULL:
                at += 1
                values.append(None)
            else:
                raise Undecodable(f"a column of the kind {chr(kind)!r}: expected text, or null", data)
        if at > len(data):
            raise Undecodable("it ends early, in a column", data)
        return Insert(relation, tuple(values)), at


def _relation(data: bytes) -> tuple[Relation, int]:
    (oid,) = _INT32.unpack_from(data, 1)
    namespace, at = _text(data, 5)
    name, at = _text(data, at)
    identity = chr(data[at])
    (count,) = _INT16.unpack_from(data, at + 1)
    at, columns = at + 3, []
    for _ in range(count):
        flags = data[at]
        column, at = _text(data, at + 1)
        (type_id,), (modifier,) = _INT32.unpack_from(data, at), _SIZE.unpack_from(data, at + 4)
        at += 8
        columns.append(Column(column, type_id, modifier, bool(flags & 1)))
    return Relation(oid, namespace, name, identity, tuple(columns)), at


def _message(data: bytes) -> tuple[Message, int]:
    flags, lsn = _MESSAGE.unpack_from(data, 1)
    prefix, at = _text(data, 1 + _MESSAGE.size)
    (size,) = _INT32.unpack_from(data, at)
    start, end = at + 4, at + 4 + size
    if end > len(data):
        raise Undecodable("it ends early, in its content", data)
    return Message(bool(flags & 1), lsn, prefix, data[start:end]), end


def _text(data: bytes, at: int) -> tuple[str, int]:
    """A text that ends with a zero byte, and where the next thing begins."""
    end = data.find(b"\0", at)
    if end < 0:
        raise Undecodable("it ends early, in a name", data)
    return data[at:end].decode(), end + 1
