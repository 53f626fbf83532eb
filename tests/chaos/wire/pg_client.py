"""A client of Postgres that sends exactly what it is told, and has every message of the server."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote, urlsplit

from chaos.wire.postgres_messages import CANCEL, FLUSH, SYNC, message

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

Message: TypeAlias = tuple[str, bytes]
Exchange: TypeAlias = tuple[bytes, str]
"""What is sent, and up to which messages of the server is read then."""

WITHIN_S = 20.0
H, S = FLUSH, SYNC
COPY_DONE = message(b"c", b"")


def start_up(version: int = 3 << 16, **settings: str) -> bytes:
    """The first message."""
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in settings.items())
    return struct.pack("!iI", len(body) + 9, version) + body + b"\0"


def query(text: str) -> bytes:
    """A simple Query."""
    return message(b"Q", text.encode() + b"\0")


def parse(text: str, name: str = "", types: Sequence[int] = ()) -> bytes:
    """Parse, with the parameters' types."""
    oids = struct.pack(f"!H{len(types)}I", len(types), *types)
    return message(b"P", name.encode() + b"\0" + text.encode() + b"\0" + oids)


def bind(
    *values: bytes | None, name: str = "", portal: str = "", formats: Sequence[int] = (), results: Sequence[int] = ()
) -> bytes:
    """Bind."""
    body = portal.encode() + b"\0" + name.encode() + b"\0"
    body += struct.pack(f"!H{len(formats)}H", len(formats), *formats) + struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1) if value is None else struct.pack("!I", len(value)) + value
    return message(b"B", body + struct.pack(f"!H{len(results)}H", len(results), *results))


def describe(name: str = "", what: str = "P") -> bytes:
    """Describe, of a portal or a statement."""
    return message(b"D", what.encode() + name.encode() + b"\0")


def execute(portal: str = "", rows: int = 0) -> bytes:
    """Execute, of so many rows."""
    return message(b"E", portal.encode() + b"\0" + struct.pack("!I", rows))


def close(name: str = "", what: str = "S") -> bytes:
    """Close, of a statement or a portal."""
    return message(b"C", what.encode() + name.encode() + b"\0")


def run(text: str, *values: bytes | None) -> bytes:
    """Parse, Bind, Describe, Execute, unnamed."""
    return parse(text) + bind(*values) + describe() + execute()


def data(text: str | bytes) -> bytes:
    """CopyData."""
    return message(b"d", text.encode() if isinstance(text, str) else text)


def simple(*texts: str) -> list[Exchange]:
    """Queries, one after the other."""
    return [(query(text), "Z") for text in texts]


def extended(*parts: bytes) -> list[Exchange]:
    """One batch, ended by a Sync."""
    return [(b"".join(parts) + S, "Z")]


class Client:
    """A connection to the server of a URL."""

    def __init__(self, url: str, version: int = 3 << 16, **options: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 5432), timeout=WITHIN_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        options = {"user": unquote(parts.username or "postgres"), "database": unquote(parts.path[1:]), **options}
        self.send(start_up(version, **options))
        self._in = bytearray()
        self.greeting = self.until("Z")
        [key] = [body for kind, body in self.greeting if kind == "K"]
        self.pid, self.cancel_key = key[:4], key

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, sent: bytes) -> None:
        """Send."""
        self._socket.sendall(sent)

    def until(self, kinds: str) -> list[Message]:
        """The server's messages up to those of these kinds, in order; empty data is its end, of the kind ``!``."""
        found: list[Message] = []
        for kind in kinds:
            while not found or kind:
                one = self.receive()
                found.append(one)
                if one[0] in {kind, "!"}:
                    break
        return found

    def receive(self) -> Message:
        """The next message."""
        try:
            self._fill(5)
            [length] = struct.unpack_from("!I", self._in, 1)
            self._fill(1 + length)
        except EOFError:
            return "!", b""
        kind, body = chr(self._in[0]), bytes(self._in[5 : 1 + length])
        del self._in[: 1 + length]
        return kind, body

    def do(self, sent: bytes, kinds: str = "Z") -> list[Message]:
        """Send, and what the server says up to there."""
        self.send(sent)
        return self.until(kinds)

    def _fill(self, size: int) -> None:
        while len(self._in) < size:
            try:
                more = self._socket.recv(1 << 18)
            except ConnectionResetError:
                more = b""
            if not more:
                raise EOFError
            self._in += more


def cancel(url: str, key: bytes) -> bytes:
    """Ask for the end of what a session does; what the server says to that, which should be nothing."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname or "", parts.port or 5432), timeout=WITHIN_S) as asking:
        asking.sendall(struct.pack("!iI", 8 + len(key), CANCEL) + key)
        return asking.recv(1)


def fields(body: bytes) -> dict[str, str]:
    """The fields of an ErrorResponse or a NoticeResponse, by their letters."""
    return {chr(part[0]): part[1:].decode() for part in body.split(b"\0") if part}


def tags(found: Sequence[Message]) -> list[str]:
    """What happened, in short: tags, SQLSTATEs, and the state at the end."""
    said = []
    for kind, body in found:
        if kind == "C":
            said.append(body[:-1].decode())
        elif kind == "E":
            said.append(fields(body)["C"])
        elif kind == "Z":
            said.append(body.decode())
        elif kind in "I!":
            said.append(kind)
    return said


def rows(found: Sequence[Message]) -> list[list[bytes | None]]:
    """The values of all rows."""
    values: list[list[bytes | None]] = []
    for kind, body in found:
        if kind == "D":
            row, at = [], 2
            for _ in range(struct.unpack_from("!H", body)[0]):
                [size] = struct.unpack_from("!i", body, at)
                row.append(None if size < 0 else body[at + 4 : at + 4 + size])
                at += 4 + max(size, 0)
            values.append(row)
    return values
