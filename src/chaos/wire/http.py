"""HTTP/1.1: every request other than GET, HEAD and OPTIONS is an effect.

Problem: say where each message begins and ends, to the byte, in streams that arrive in pieces of any size.

Things that don't work:

- h11 for whole messages. It takes the bytes into its own buffer and gives back events, not bytes; `trailing_data` tells
  where an event ended, but copies all that is left for each event: 350 MB for a read of 64 KB full of tiny chunks.
  Its two roles must also be walked through every cycle with made-up replies before a pipelined request can be read.
- Regular expressions for all heads: folded lines, two lengths that differ, codings nobody knows. h11 knows them.
- Waiting for the blank line that ends a head: a client that speaks something else, TLS say, would wait for ever.

Solution: heads are read one at a time, in `http_heads`, where h11's word is final; where a body ends is counted in
`http_bodies`. A first line that cannot become HTTP is told at its first odd byte.

What is kept back:

- An effect, until it is complete or `LIMIT` bytes of it are there; so keys in its body are seen. Its contents are the
  head, and the body without its chunk sizes and gzip. With ``Expect: 100-continue`` only the head is kept: the client
  waits for the server. Of one that waits without saying so, `overdue` says what there is. The rest is `Pass`.
- The reply to an effect, likewise, if its head tells its length. One in chunks or until the connection closes may be a
  stream of events: its `Answer` is the head alone.

A reply's status is its outcome: 2xx and 3xx ``done``, 4xx ``refused``; a 5xx may come from before or after the deed and
is ``unclear``. Interim replies (1xx) pass, and so does a reply to nothing (the 408 of a server tired of waiting). A
client that closes in the middle of an effect leaves an `Effect` that is never `Delivered`; and so does a refusal.

A refusal says ``Connection: close`` where the client would close anyhow, and where it waits for leave to send a body:
it may send that or not, and nobody could tell which. Whatever comes after that is dropped, as a server that has closed
would; steps cannot close, so a client that wants to see the end itself waits until its own patience has one.

Known residual cases: half a head is no effect yet, and stays kept even when it is overdue. What the server's side kept
back when the client's turned `Raw` comes out with its next bytes or its end; the other way round `overdue` says it.
After an early reply, what follows still counts as the body that was announced, as RFC 9112 has it.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import h11

from chaos.wire.http_bodies import UNTIL_CLOSE, Body, body_of
from chaos.wire.http_heads import LIMIT, REPLIES, REQUESTS, Form, NotUnderstood, fields, length
from chaos.wire.steps import Answer, Delivered, Drop, Effect, Pass, Raw, Reply, TooLate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.wire.steps import Outcome, Step

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OUTCOMES: Final[dict[int, Outcome]] = {2: "done", 3: "done", 4: "refused"}
_NO_CONTENT, _NOT_MODIFIED, _SWITCHING, _FINAL = 204, 304, 101, 200
_BLANK_LINES: Final = re.compile(rb"(?:\r?\n)*")
_ERROR: Final = re.compile(r"[45][0-9][0-9]")
_LATER: Final = frozenset({"429", "503"})
_READABLE: Final = frozenset({b"", b"identity", b"gzip", b"x-gzip", b"deflate"})


@dataclass(slots=True, eq=False)
class _Exchange:
    """A request, and the `number` of the effect that it is; 0 for none."""

    method: str
    coding: bytes
    connection: bytes  # what a refusal says about it; empty where nothing needs to be said
    expects: bool  # leave to send the body
    number: int = 0


@dataclass(slots=True)
class _Message:
    head: bytes
    body: Body
    whole: bool  # whether it is kept back beyond its head
    exchange: _Exchange | None  # a request's own; the one that a reply ends
    outcome: Outcome = "unclear"
    said: bool = False
    refused: bool = False


class _Direction:
    """The messages of one direction: a head, kept back until it is complete, then a body."""

    form: Form

    def __init__(self, exchanges: deque[_Exchange], not_understood: Counter[str]) -> None:
        self.stalled = False  # nothing more can be said of what is kept
        self._exchanges = exchanges  # that were said and have not been replied to, oldest first
        self._not_understood = not_understood
        self._message: _Message | None = None
        self._kept = bytearray()  # the part of the message that was read and not said
        self._data, self._at = b"", 0  # what was read up to there
        self._deaf = False

    def read(self, data: bytes) -> Iterator[Step]:
        """The steps that `data` makes possible."""
        self.stalled = False
        self._data, self._at = self._rest() + data, 0
        while self._at < len(self._data):
            if self._deaf:
                yield Drop(self._rest())
            elif self._message is not None:
                room = LIMIT - len(self._kept) if self._message.whole else len(self._data)
                self._kept += self._cut(self._message.body.take(self._data[self._at : self._at + room]))
                yield from self._advance(self._message)
            elif blank := _BLANK_LINES.match(self._data, self._at)[0]:  # type: ignore[index]  # it matches anything
                self._at += len(blank)
                yield Pass(blank)
            elif size := length(self.form, self._data, self._at):
                self._message = self._understand(self._data[self._at : self._at + size])
                self._kept += self._cut(size)
                yield from self._advance(self._message)
            else:
                break
        self.stalled = self.holds

    @property
    def holds(self) -> bool:
        """Whether there is something that was not said."""
        return bool(self._kept) or self._at < len(self._data)

    def overdue(self) -> Iterator[Step]:
        """The part of a message that is there."""
        if self._kept and self._message is not None:
            yield self._say(self._message)

    def close(self) -> Iterator[Step]:
        """What is left when no more will come."""
        self.stalled = False
        if self._kept and self._message is not None:
            yield self._say(self._message)
        yield from self.pass_on(b"")

    def pass_on(self, data: bytes) -> Iterator[Step]:
        """Everything that was not said yet, and `data`, as it is."""
        refused = self._message is not None and self._message.refused and not self._message.body.done
        data = bytes(self._kept) + self._rest() + data
        self._kept.clear()
        if data:
            yield Drop(data) if refused or self._deaf else Pass(data)

    def _cut(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]

    def _rest(self) -> bytes:
        rest = self._data[self._at :]
        self._data, self._at = b"", 0
        return rest

    def _advance(self, message: _Message) -> Iterator[Step]:
        body = message.body
        if not message.whole or body.done or body.broken or len(self._kept) >= LIMIT:
            yield self._say(message)
        if body.broken:
            if not message.refused:
                raise NotUnderstood(body.broken)
            self._deaf = True
        if body.done:
            self._message = None
            yield from self._end(message)

    def _say(self, message: _Message) -> Step:
        data = bytes(self._kept)
        self._kept.clear()
        step = self._name(message, data) if not message.said else Drop(data) if message.refused else Pass(data)
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
    form = REQUESTS
    _effects = 0

    def refuse(self, effect: Effect, error: str) -> Iterator[Step]:
        """Steps in place of the effect that was said just now."""
        message = self._message
        exchange = message.exchange if message is not None and message.said else None
        if not _ERROR.fullmatch(error):
            raise ValueError(f"{error!r} cannot be said to an HTTP request; 429 can, and 503, and all from 400 to 599")
        if message is None or exchange is None or exchange.number != effect.number or exchange not in self._exchanges:
            raise TooLate(f"nothing can be said any more to effect {effect.number}: it is over")
        return self._refuse(message, exchange, effect.data, error)

    def _refuse(self, message: _Message, exchange: _Exchange, data: bytes, error: str) -> Iterator[Step]:
        message.refused = True
        self._exchanges.remove(exchange)
        connection = b"close" if exchange.expects and not message.body.done else exchange.connection
        self._deaf = connection == b"close"
        yield Drop(data)
        yield Reply(_refusal(error, connection))

    def _understand(self, head: bytes) -> _Message:
        told = fields(h11.SERVER, head)
        method = head[: head.index(b" ")].decode()
        if method == "CONNECT":
            raise NotUnderstood("CONNECT: a tunnel")
        newest = head[: head.index(b"\n")].rstrip().endswith(b"1.1")
        connection = told.get(b"connection", b"").lower()
        if b"close" not in connection:
            connection = b"" if newest else b"keep-alive" if b"keep-alive" in connection else b"close"
        else:
            connection = b"close"
        expects = newest and b"100-continue" in told.get(b"expect", b"").lower()
        exchange = _Exchange(method, told.get(b"content-encoding", b"").lower(), connection, expects)
        return _Message(head, body_of(told, otherwise=0), method not in _SAFE and not expects, exchange)

    def _name(self, message: _Message, data: bytes) -> Step:
        exchange = message.exchange
        assert exchange is not None  # noqa: S101  # a request always is one
        self._exchanges.append(exchange)
        if exchange.method in _SAFE:
            return Pass(data)
        self._effects += 1
        exchange.number = self._effects
        site = f"http.{exchange.method.lower()}"
        if exchange.coding not in _READABLE:
            self._not_understood[f"{site} in {exchange.coding.decode(errors='replace')[:40]}"] += 1
        text = bytes(message.body.text or b"")
        contents = (message.head, _decompressed(text) if exchange.coding else text)
        return Effect(exchange.number, site, contents, data)

    def _end(self, message: _Message) -> Iterator[Step]:
        if message.exchange is not None and message.exchange.number and not message.refused:
            yield Delivered(message.exchange.number)


class _Replies(_Direction):
    form = REPLIES

    def _understand(self, head: bytes) -> _Message:
        status = int(head[9:12])
        if status == _SWITCHING:
            raise NotUnderstood("101: the connection switches to another protocol")
        if status < _FINAL:
            return _Message(head, Body(0), whole=False, exchange=None)
        told = fields(h11.CLIENT, head)
        exchange = self._exchanges[0] if self._exchanges else None
        if status in {_NO_CONTENT, _NOT_MODIFIED} or (exchange and exchange.method == "HEAD"):
            body = Body(0)
        else:
            body = body_of(told, otherwise=UNTIL_CLOSE)
        whole = exchange is not None and exchange.number > 0 and b"transfer-encoding" not in told
        whole = whole and b"content-length" in told
        return _Message(head, body, whole, exchange, _OUTCOMES.get(status // 100, "unclear"))

    def _name(self, message: _Message, data: bytes) -> Step:
        number = message.exchange.number if message.exchange else 0
        return Answer(number, message.outcome, data) if number else Pass(data)

    def _end(self, message: _Message) -> Iterator[Step]:
        if message.exchange:
            self._exchanges.popleft()
        yield from ()


def _decompressed(text: bytes) -> bytes:
    """What `text` says if it is gzip or zlib, as much as there is; any other text as it is."""
    try:
        return zlib.decompressobj(wbits=47).decompress(text, 16 * LIMIT)
    except zlib.error:
        return text


def _refusal(error: str, connection: bytes) -> bytes:
    status = int(error)
    phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Refused"
    lines = [f"HTTP/1.1 {error} {phrase}", "Content-Length: 0"]
    lines += ["Retry-After: 1"] * (error in _LATER)
    lines += [f"Connection: {connection.decode()}"] * bool(connection)
    return "\r\n".join([*lines, "", ""]).encode()


class Http:
    """One HTTP/1.1 connection; a `chaos.wire.steps.WireProtocol`, see the module's docstring.

    `not_understood` counts effects whose bodies are compressed in a way that is not read here.
    """

    def __init__(self) -> None:
        self.not_understood: Counter[str] = Counter()
        self.stirs = 0  # what is safe changes nothing
        self._exchanges: deque[_Exchange] = deque()
        self._requests = _Requests(self._exchanges, self.not_understood)
        self._replies = _Replies(self._exchanges, self.not_understood)
        self._raw = False

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        return self._steps(self._requests, data)

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        return self._steps(self._replies, data)

    def overdue(self) -> Iterator[Step]:
        """What is there of a request whose client may be waiting for the server; the rest of it passes as it comes."""
        if not self._raw:
            yield from self._requests.overdue()
        elif self._requests.stalled:
            yield from self._requests.pass_on(b"")

    @property
    def kept(self) -> bool:
        """Whether part of a request is kept back, whose rest has not come."""
        return self._requests.stalled and self._requests.holds

    @property
    def outstanding(self) -> int:
        """How many requests were said whose replies have not passed up to their last byte; none once it is raw."""
        return len(self._exchanges)

    def refuse(self, effect: Effect, error: str) -> Iterator[Step]:
        """Steps in place of an effect that was said just now; `error` is a status from 400 to 599.

        What comes of its body after them is dropped, and it is not `Delivered`.

        Raises:
            ValueError: `error` is no such status, or the effect is over.
        """
        return self._requests.refuse(effect, error)

    def farewell(self) -> bytes:
        """Nothing: the end of the stream says it."""
        return b""

    def _steps(self, direction: _Direction, data: bytes) -> Iterator[Step]:
        try:
            if not self._raw:
                for step in direction.read(data) if data else direction.close():
                    data = b""
                    yield step
                    if self._raw:  # the other direction says so
                        break
                else:
                    return
        except NotUnderstood as why:
            data, self._raw = b"", True
            self._exchanges.clear()
            yield Raw(str(why))
        yield from direction.pass_on(data)
