"""Messages of the Postgres protocol, version 3: those that the wire makes, and what it reads in others."""

from __future__ import annotations

import struct
from typing import Final

CANCEL, SSL, GSSENC = 80877102, 80877103, 80877104
MAJOR: Final = 3
TERMINATE: Final = b"X\0\0\0\4"
FLUSH: Final = b"H\0\0\0\4"
SYNC: Final = b"S\0\0\0\4"

_UNCLEAR: Final = ("08", "57P0", "40003", "XX")
"""Beginnings of SQLSTATEs after which a commit may have happened: connection, shutdown, unknown, internal."""


def message(kind: bytes, body: bytes) -> bytes:
    """A message with its type and length."""
    return kind + struct.pack("!i", len(body) + 4) + body


FORGET: Final = message(b"C", b"S\0")
"""Close of the unnamed statement, which a simple Query would have ended."""

COPY_FAIL: Final = message(b"f", b"the client has gone\0")


def run(statement: bytes) -> bytes:
    """Parse, Bind, Describe and Execute of a text without parameters, unnamed, its rows as text."""
    return (
        message(b"P", b"\0" + statement + b"\0\0\0")
        + message(b"B", b"\0\0\0\0\0\0\0\0")
        + message(b"D", b"P\0")
        + message(b"E", b"\0\0\0\0\0")
    )


def query(text: bytes) -> bytes:
    """A simple Query."""
    return message(b"Q", text + b"\0")


def ask(number: int) -> bytes:
    """Parse, Bind, Execute and Close of the question whether this transaction has an id, under a name of the wire's."""
    name = b"onecharge.%d" % number
    return (
        message(b"P", name + b"\0SELECT pg_catalog.txid_current_if_assigned()\0\0\0")
        + message(b"B", name + b"\0" + name + b"\0\0\0\0\0\0\0")
        + message(b"E", name + b"\0\0\0\0\0")
        + message(b"C", b"S" + name + b"\0")
    )


def error(sqlstate: str, text: str) -> bytes:
    """An ErrorResponse."""
    fields = (b"SERROR", b"VERROR", b"C" + sqlstate.encode(), b"M" + text.encode())
    return message(b"E", b"".join(field + b"\0" for field in fields) + b"\0")


def _fields(body: bytes) -> dict[bytes, str]:
    return {field[:1]: field[1:].decode(errors="replace") for field in body.split(b"\0") if field}


def is_fatal(body: bytes) -> bool:
    """Whether the session ends with this ErrorResponse."""
    fields = _fields(body)
    return fields.get(b"V", fields.get(b"S", "")) in {"FATAL", "PANIC"}


def is_unclear(body: bytes) -> bool:
    """Whether what an ErrorResponse ended may have happened all the same."""
    return is_fatal(body) or _fields(body).get(b"C", "").startswith(_UNCLEAR)


def strings(body: bytes, count: int) -> tuple[list[bytes], int]:
    """The first `count` zero-terminated strings, and where they end.

    Raises:
        ValueError: there are not so many.
    """
    found, at = [], 0
    for _ in range(count):
        end = body.index(b"\0", at)
        found.append(body[at:end])
        at = end + 1
    return found, at


def parameters(body: bytes, at: int) -> list[bytes]:
    """The values of a Bind message, whose formats begin at `at`; none where it is not well formed."""
    try:
        [formats] = struct.unpack_from("!H", body, at)
        at += 2 + 2 * formats
        [count] = struct.unpack_from("!H", body, at)
        at += 2
        values = []
        for _ in range(count):
            [length] = struct.unpack_from("!i", body, at)
            at += 4 + max(length, 0)
            values.append(body[at - max(length, 0) : at])
    except struct.error:
        return []
    return values


def first_value(body: bytes) -> bytes | None:
    """The first value of a DataRow; None for null."""
    [_, length] = struct.unpack_from("!Hi", body + b"\xff" * 6)
    return None if length < 0 else body[6 : 6 + length]
