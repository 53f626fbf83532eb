"""Where the body of an HTTP/1.1 message ends: by count, by chunks, or with the connection. Bytes are only counted."""

from __future__ import annotations

import re
from typing import Final

LINE_LIMIT: Final = 4096
"""Bytes of a chunk's size with its extensions, or of one trailer; a longer one is broken."""

UNTIL_CLOSE: Final = 1 << 99
"""The length of a body that ends with the connection: nobody sends as many bytes."""

_CHUNK_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")


class Body:
    """Where a body of `left` bytes ends. `text` is what it says, for as long as somebody wants to know."""

    def __init__(self, left: int) -> None:
        self.text: bytearray | None = bytearray()
        self.done = left == 0
        self.broken = ""
        self._left = left

    def take(self, data: bytes) -> int:
        """How many of the bytes in `data`, at least one, belong to this body."""
        count = self._read(data, 0)
        self.done = self._left == 0
        return count

    def _read(self, data: bytes, at: int) -> int:
        part = data[at : at + self._left]
        if self.text is not None:
            self.text += part
        self._left -= len(part)
        return at + len(part)


class Chunked(Body):
    """A body in chunks: line with a size, that many bytes, line end; after size 0 trailers up to an empty line."""

    def __init__(self) -> None:
        super().__init__(0)
        self.done = False
        self._line = b""
        self._expected = "size"

    def take(self, data: bytes) -> int:
        """How many of the bytes in `data`, at least one, belong to this body."""
        at = 0
        while at < len(data) and not self.done and not self.broken:
            at = self._read(data, at) if self._left else self._read_line(data, at)
        return at

    def _read_line(self, data: bytes, at: int) -> int:
        longest = at + LINE_LIMIT - len(self._line)
        end = data.find(b"\n", at, longest) + 1 or min(longest, len(data))
        self._line += data[at:end]
        if self._line.endswith(b"\n"):
            self._understand(self._line)
            self._line = b""
        elif len(self._line) == LINE_LIMIT:
            self.broken = f"a line of more than {LINE_LIMIT} bytes in a chunked body"
        return end

    def _understand(self, line: bytes) -> None:
        empty = line in {b"\n", b"\r\n"}
        if self._expected == "trailer":
            self.done = empty
        elif self._expected == "end" and empty:
            self._expected = "size"
        elif self._expected == "size" and (size := _CHUNK_SIZE.fullmatch(line)):
            self._left = int(size[1], 16)
            self._expected = "end" if self._left else "trailer"
        else:
            self.broken = f"no chunk {self._expected}: {line[:40]!r}"


def body_of(headers: dict[bytes, bytes], otherwise: int) -> Body:
    """The body that `headers` announce, of `otherwise` bytes if they do not; h11 has seen to it that they are valid."""
    return Chunked() if b"transfer-encoding" in headers else Body(int(headers.get(b"content-length", otherwise)))
