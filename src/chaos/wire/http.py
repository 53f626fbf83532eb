"""HTTP/1.1: every request other than GET, HEAD and OPTIONS is an effect.

Problem: say where each message begins and ends, to the byte, in streams that arrive in pieces of any size.

Things that don't work:

- h11 for whole messages. It takes the bytes into its own buffer and gives back events, not bytes; `trailing_data` tells
  where an event ended, but copies all that is left for each event: 350 MB for a read of 64 KB full of tiny chunks.
  Its two roles must also be walked through every cycle with made-up replies before a pipelined request can be read.
- Regular expressions for heads: folded lines, two lengths that differ, transfer codings nobody knows. h11 knows them.
- Waiting for the blank line that ends a head: a client that speaks something else, TLS say, would wait for ever.

Solution: h11 reads heads, one at a time, and its word is final; where a body ends is counted in `http_bodies`. A first
line that cannot become HTTP is told at its first odd byte.

What is kept back:

- An effect, until it is complete or `LIMIT` bytes of it are there; so keys in its body are seen. Its contents are the
  head, and the body without its chunk sizes and gzip. With ``Expect: 100-continue`` only the head is kept: the client
  waits for the server. The rest is `Pass`.
- The reply to an effect, likewise, if its head tells its length. One in chunks or until the connection closes may be a
  stream of events: its `Answer` is the head alone.

A reply's status is its outcome: 2xx and 3xx ``done``, 4xx ``refused``; a 5xx may come from before or after the deed and
is ``unclear``. Interim replies (1xx) pass, and so does a reply to nothing (the 408 of a server tired of waiting). A
client that closes in the middle of an effect leaves an `Effect` that is never `Delivered`.

Known residual cases: a client that, without ``Expect``, waits for the reply before it ends a body below `LIMIT` waits
for ever. What one direction kept back when the other one turned `Raw` comes out with its next bytes or its end. After
an early reply, what follows still counts as the body that was announced, as RFC 9112 has it.
"""

from __future__ import annotations

import re
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import h11

from chaos.wire.http_bodies import UNTIL_CLOSE, Body, body_of
from chaos.wire.steps import Answer, Delivered, Effect, Pass, Raw

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.wire.steps import Outcome, Step

LIMIT: Final = 64 * 1024
"""Bytes of one message that are kept back at most; a head that is longer is not understood."""

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OUTCOMES: Final[dict[int, Outcome]] = {2: "done", 3: "done", 4: "refused"}
_NO_CONTENT, _NOT_MODIFIED, _SWITCHING, _FINAL = 204, 304, 101, 200

_BLANK_LINES: Final = re.compile(rb"(?:\r?\n)*")
_HEAD_END: Final = re.compile(rb"\n\r?\n")  # what h11 takes for it
_REQUEST_LINE: Final = re.compile(rb"[A-Za-z][A-Za-z-]{0,23} [!-~]+ HTTP/1\.[01]\r?\n")
_REQUEST_LINE_SO_FAR: Final = re.compile(rb"[A-Za-z][A-Za-z-]{0,23}(?: [ -~]*\r?)?")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n")
_STATUS_LINE_SO_FAR: Final = re.compile(rb"H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.[^\r\n]*\r?")


class _NotUnderstood(Exception):
    """Why the connection is raw from here on."""


@dataclass(slots=True)
class _Exchange:
    """A request, and the `number` of the effect that it is; 0 for none."""

    method: str
    encoded: bool
    number: int = 0


@dataclass(slots=True)
class _Message:
    head: bytes
    body: Body
    whole: bool  # whether it is kept back beyond its head
    exchange: _Exchange | None  # a request's own; the one that a reply ends
    outcome: Outcome = "unclear"
    said: bool = False


class _Direction:
    """The messages of one direction: a head, kept back until it is complete, then a body."""

    line: re.Pattern[bytes]
    line_so_far: re.Pattern[bytes]

    def __init__(self, exchanges: deque[_Exchange]) -> None:
        self._exchanges = exchanges  # that the server knows of and has not replied to, oldest first
        self._message: _Message | None = None
        self._kept = bytearray()  # the part of the message that was read and not said
        self._rest = b""  # not read

    def read(self, data: bytes) -> Iterator[Step]:
        """The steps that `data` makes possible."""
        self._rest += data
        while self._rest:
            if self._message is None:
                if blank := _BLANK_LINES.match(self._rest)[0]:  # type: ignore[index]  # it matches anything
                    self._cut(len(blank))
                    yield Pass(blank)
                    continue
                if not (length := self._head_length()):
                    return
                self._message = self._understand(self._rest[:length])
            else:
                room = LIMIT - len(self._kept) if self._message.whole else len(self._rest)
                length = self._message.body.take(self._rest[:room])
            self._kept += self._cut(length)
            yield from self._advance(self._message)

    def close(self) -> Iterator[Step]:
        """What is left when no more will come."""
        if self._kept and self._message is not None:
            yield self._say(self._message)
        if self._rest:
            yield Pass(self._cut(len(self._rest)))

    def pass_on(self, data: bytes) -> Iterator[Step]:
        """Everything that was not said yet, and `data`, as it is."""
        data = bytes(self._kept) + self._cut(len(self._rest)) + data
        self._kept.clear()
        if data:
            yield Pass(data)

    def _cut(self, length: int) -> bytes:
        part, self._rest = self._rest[:length], self._rest[length:]
        return part

    def _head_length(self) -> int:
        """The length of the head that comes next; 0 while it is incomplete."""
        begin = self._rest[:LIMIT]
        if begin == b"\r":
            return 0
        line = begin[: begin.find(b"\n") + 1]
        if line.startswith(b"PRI * HTTP/2.0"):
            raise _NotUnderstood("HTTP/2")
        if not (self.line.fullmatch(line) if line else self.line_so_far.fullmatch(begin)):
            raise _NotUnderstood(f"not HTTP/1.1: {(line or begin)[:40]!r}")
        if end := _HEAD_END.search(begin):
            return end.end()
        if len(begin) == LIMIT:
            raise _NotUnderstood(f"a head of more than {LIMIT} bytes")
        return 0

    def _advance(self, message: _Message) -> Iterator[Step]:
        body = message.body
        if not message.whole or body.done or body.broken or len(self._kept) >= LIMIT:
            yield self._say(message)
        if body.broken:
            raise _NotUnderstood(body.broken)
        if body.done:
            self._message = None
            yield from self._end(message)

    def _say(self, message: _Message) -> Step:
        data = bytes(self._kept)
        self._kept.clear()
        step = Pass(data) if message.said else self._name(message, data)
        message.said, message.whole, message.body.text = True, False, None
        return step

    def _understand(self, head: bytes) -> _Message:
        raise NotImplementedError

    def _name(self, message: _Message, data: bytes) -> Step:
        """The first step of `message`."""
        raise NotImplementedError

    def _end(self, message: _Message) -> Iterator[Step]:
        raise NotImplementedError


class _Requests(_Direction):
    line, line_so_far = _REQUEST_LINE, _REQUEST_LINE_SO_FAR
    _effects = 0

    def _understand(self, head: bytes) -> _Message:
        request, headers = _parse(h11.SERVER, head)
        method = request.method.decode() if isinstance(request, h11.Request) else ""
        if method == "CONNECT":
            raise _NotUnderstood("CONNECT: a tunnel")
        waits = request.http_version > b"1.0" and b"100-continue" in headers.get(b"expect", b"").lower()
        exchange = _Exchange(method, encoded=b"content-encoding" in headers)
        return _Message(head, body_of(headers, otherwise=0), method not in _SAFE and not waits, exchange)

    def _name(self, message: _Message, data: bytes) -> Step:
        exchange = message.exchange
        assert exchange is not None  # noqa: S101  # a request always is one
        self._exchanges.append(exchange)
        if exchange.method in _SAFE:
            return Pass(data)
        self._effects += 1
        exchange.number = self._effects
        text = bytes(message.body.text or b"")
        contents = (message.head, _decompressed(text) if exchange.encoded else text)
        return Effect(exchange.number, f"http.{exchange.method.lower()}", contents, data)

    def _end(self, message: _Message) -> Iterator[Step]:
        if message.exchange is not None and message.exchange.number:
            yield Delivered(message.exchange.number)


class _Replies(_Direction):
    line, line_so_far = _STATUS_LINE, _STATUS_LINE_SO_FAR

    def _understand(self, head: bytes) -> _Message:
        status = int(head[9:12])
        if status == _SWITCHING:
            raise _NotUnderstood("101: the connection switches to another protocol")
        if status < _FINAL:
            return _Message(head, Body(0), whole=False, exchange=None)
        _, headers = _parse(h11.CLIENT, head)
        exchange = self._exchanges[0] if self._exchanges else None
        if status in {_NO_CONTENT, _NOT_MODIFIED} or (exchange and exchange.method == "HEAD"):
            body = Body(0)
        else:
            body = body_of(headers, otherwise=UNTIL_CLOSE)
        whole = exchange is not None and exchange.number > 0 and b"transfer-encoding" not in headers
        whole = whole and b"content-length" in headers
        return _Message(head, body, whole, exchange, _OUTCOMES.get(status // 100, "unclear"))

    def _name(self, message: _Message, data: bytes) -> Step:
        number = message.exchange.number if message.exchange else 0
        return Answer(number, message.outcome, data) if number else Pass(data)

    def _end(self, message: _Message) -> Iterator[Step]:
        if message.exchange:
            self._exchanges.popleft()
        yield from ()


def _parse(role: type[h11.SERVER | h11.CLIENT], head: bytes) -> tuple[h11.Request | h11.Response, dict[bytes, bytes]]:
    """A complete head, as h11 reads it in the `role` of its receiver."""
    connection = h11.Connection(role)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.ProtocolError as error:
        raise _NotUnderstood(f"not HTTP/1.1: {error}") from error
    if not isinstance(event, h11.Request | h11.Response):
        raise _NotUnderstood(f"not HTTP/1.1: {head[:40]!r}")
    return event, dict(event.headers)


def _decompressed(text: bytes) -> bytes:
    """What `text` says if it is gzip or zlib, as much as there is; any other text as it is."""
    try:
        return zlib.decompressobj(wbits=47).decompress(text, 16 * LIMIT)
    except zlib.error:
        return text


class Http:
    """One HTTP/1.1 connection; see the module's docstring. All of a call's steps are worked out in the call."""

    def __init__(self) -> None:
        exchanges: deque[_Exchange] = deque()
        self._requests = _Requests(exchanges)
        self._replies = _Replies(exchanges)
        self._raw = False

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        return iter(list(self._steps(self._requests, data)))

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        return iter(list(self._steps(self._replies, data)))

    def _steps(self, direction: _Direction, data: bytes) -> Iterator[Step]:
        if self._raw:
            yield from direction.pass_on(data)
            return
        try:
            yield from direction.read(data) if data else direction.close()
        except _NotUnderstood as why:
            self._raw = True
            yield Raw(str(why))
            yield from direction.pass_on(b"")
