"""A Postgres server that is none: it answers plausibly, in the order and at the moments in which a server does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from chaos.wire.postgres_messages import message, strings
from chaos.wire.postgres_sql import statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.wire.postgres_sql import Statement

QUESTION: Final = b"txid_current_if_assigned"
_TYPE: Final = b"\0\1n\0" + struct.pack("!IHIHiH", 0, 0, 25, 65535, -1, 0)
GREETING: Final = (
    message(b"R", b"\0\0\0\0")
    + message(b"S", b"server_version\x0018.0\0")
    + message(b"K", b"\0\0\0\7" + b"key!")
    + message(b"Z", b"I")
)


def failure(sqlstate: bytes, severity: bytes = b"ERROR") -> bytes:
    """An ErrorResponse."""
    return message(b"E", b"S%b\0V%b\0C%b\0Mno\0\0" % (severity, severity, sqlstate))


class Server:
    """What has the word FAIL in it is an error, what has LATE in it is one when it is committed.

    What has ROWS in it is answered with rows, what is a "write" makes the transaction have an id.
    """

    def __init__(self, row: bytes = b"a row") -> None:
        self.committed: list[bytes] = []  # texts
        self.asked = 0
        self.question_fails = b""
        self.ends_at = b""  # at a message that begins so its last word is an error
        self.says: bytes | None = None  # this, once, and nothing more
        self._row = message(b"D", struct.pack("!Hi", 1, len(row)) + row)
        self._in = bytearray()
        self._out = bytearray()  # not flushed
        self._said = bytearray()
        self._status = b"I"
        self._did: list[bytes] = []
        self._skipping = self._copying = self._extended = False
        self._tag = b""
        self._prepared: dict[bytes, bytes] = {}
        self._portals: dict[bytes, bytes] = {}
        self._read: Callable[[], bool] = self._start_up
        self.gone = False

    def feed(self, data: bytes) -> bytes:
        """What it says to that."""
        if self.says is not None:
            says, self.says = self.says, b""
            return says
        if self.ends_at and self.ends_at in data:
            self.gone = True
            return failure(b"57P01", b"FATAL")
        self._in += data
        while not self.gone and self._read():
            pass
        said = bytes(self._said)
        self._said.clear()
        return said

    def _flush(self) -> None:
        self._said += self._out
        self._out.clear()

    def _start_up(self) -> bool:
        if len(self._in) < 8 or len(self._in) < struct.unpack_from("!I", self._in)[0]:
            return False
        del self._in[: max(4, struct.unpack_from("!I", self._in)[0])]
        self._said += GREETING
        self._read = self._message
        return True

    def _message(self) -> bool:
        if len(self._in) < 5:
            return False
        kind, [length] = self._in[:1], struct.unpack_from("!I", self._in, 1)
        if length < 4 or length > 1 << 24 or kind not in b"QPBEDCSHFdcfXp":
            self._said += failure(b"08P01", b"FATAL")
            self.gone = True
            return False
        if len(self._in) <= length:
            return False
        body = bytes(self._in[5 : 1 + length])
        del self._in[: 1 + length]
        if self._copying:
            self._copy(bytes(kind))
        elif kind == b"S":
            self._sync()
        elif not self._skipping:
            self._carry_out(bytes(kind), body)
        return True

    def _carry_out(self, kind: bytes, body: bytes) -> None:
        try:
            if kind == b"Q":
                self._query(body.rstrip(b"\0"))
            elif kind in b"PBEDC":
                self._step(kind, body)
            elif kind == b"F":
                self._execute(b"write", None)
                self._out += message(b"V", b"\xff\xff\xff\xff")
                self._sync()
            elif kind == b"X":
                self.gone = True
        except (ValueError, KeyError):
            self._fail(extended=kind != b"Q")
        if kind in b"HQ":
            self._flush()

    def _step(self, kind: bytes, body: bytes) -> None:
        if kind == b"P":
            [name, text], _ = strings(body, 2)
            self._prepared[name] = text
            self._out += message(b"1", b"")
        elif kind == b"B":
            [portal, name], _ = strings(body, 2)
            self._portals[portal] = self._prepared[name]
            self._out += message(b"2", b"")
        elif kind == b"D":
            known = self._prepared if body[:1] == b"S" else self._portals
            text = known[body[1:-1]]
            self._out += message(b"t", b"\0\0") if body[:1] == b"S" else b""
            self._out += message(b"T", _TYPE) if b"ROWS" in text else message(b"n", b"")
        elif kind == b"C":
            (self._prepared if body[:1] == b"S" else self._portals).pop(body[1:-1], None)
            self._out += message(b"3", b"")
        else:
            self._extended = True
            text = self._portals[body.partition(b"\0")[0]]
            self._ask() if QUESTION in text else self._run(text, described=True)

    def _ask(self) -> None:
        self.asked += 1
        if self.question_fails:
            raise ValueError
        value = struct.pack("!Hi", 1, 1) + b"7" if self._did else struct.pack("!Hi", 1, -1)
        self._out += message(b"D", value) + message(b"C", b"SELECT 1\0")

    def _query(self, text: bytes) -> None:
        parts = statements(text)
        if parts is None:
            raise ValueError
        for part in parts:
            self._run(part.text, described=False)
            if self._copying:
                return
        self._finish()

    def _run(self, text: bytes, *, described: bool) -> None:
        """One statement."""
        parts = statements(text)
        if not parts or len(parts) > 1 or b"FAIL" in text:
            raise ValueError
        [part] = parts
        if self._status == b"E" and part.kind not in {"rollback", "commit"}:
            raise ValueError
        if part.kind == "empty":
            self._out += message(b"I", b"")
            return
        if b"ROWS" in text:
            self._out += b"" if described else message(b"T", _TYPE)
            self._out += self._row * 3
        if part.kind == "copy in":
            self._copying = True
            self._out += message(b"G", b"\0\0\0")
            self._flush()
            self._did.append(text)
            return
        self._execute(text, part)
        self._out += message(b"C", self._tag + b"\0")

    def _execute(self, text: bytes, part: Statement | None) -> None:
        kind = part.kind if part else "write"
        self._tag = text.split()[0].upper() if text.split() else b""
        if kind == "begin":
            self._status = b"T"
        elif kind in {"commit", "prepare transaction"}:
            failed, self._status = self._status == b"E", b"I"
            self._tag = b"ROLLBACK" if failed else self._tag
            self._commit()
        elif kind == "rollback":
            self._status = b"I"
            self._did.clear()
        elif kind in {"write", "call", "at once", "copy in"}:
            self._did.append(text)

    def _commit(self) -> None:
        did, self._did = self._did, []
        if any(b"LATE" in text for text in did):
            raise ValueError
        self.committed += did

    def _finish(self) -> None:
        """The end of a Query or a Sync."""
        try:
            if self._status == b"I":
                self._commit()
        except ValueError:
            self._out += failure(b"42601")
        self._extended = False
        self._out += message(b"Z", self._status)

    def _fail(self, *, extended: bool) -> None:
        self._status = b"E" if self._status in {b"T", b"E"} else b"I"
        self._did.clear()
        self._out += failure(self.question_fails or b"42601")
        self._skipping = extended
        if not extended:
            self._out += message(b"Z", self._status)
        self._flush()

    def _sync(self) -> None:
        if self._skipping:
            self._skipping = self._extended = False
            self._out += message(b"Z", self._status)
        else:
            self._finish()
        self._flush()

    def _copy(self, kind: bytes) -> None:
        if kind in b"dHS":
            return
        self._copying = False
        extended = self._extended
        if kind == b"c":
            self._out += message(b"C", b"COPY 1\0")
            if not extended:
                self._finish()
        else:
            self._fail(extended=extended)
        self._flush()
