"""The server's side of a Postgres connection: whose reply each message is, and what it says about transactions.

Rows are not looked at, and leave in the chunks they came in; this is the path of a bulk read. What answers the wire's
own questions is dropped. While `Session.keeping`, what the client is to see is kept back, up to `LIMIT` bytes, so that
a reply can be lost whole. Where a simple Query was sent as something else, the end of its last statement is said when
its commit has succeeded, as the server does.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from chaos.wire.postgres_messages import CANCEL, first_value, is_fatal, is_unclear, message
from chaos.wire.postgres_session import Expected, NotUnderstood, Session
from chaos.wire.postgres_transaction import LIMIT
from chaos.wire.steps import Answer, Drop, Insert, Pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.wire.postgres_transaction import Transaction
    from chaos.wire.steps import Outcome, Step

_LONGEST: Final = 1 << 30
_length = struct.Struct("!I").unpack_from
_ROW, _COPY = ord("D"), ord("d")
_ASYNCHRONOUS: Final = frozenset(b"SAv")
_PASSING: Final = frozenset(b"RSANvVtHcGW")
_ENDS: Final = {ord("1"): "parse", ord("2"): "bind", ord("3"): "close", ord("n"): "describe"}
_HEAD: Final = 5  # bytes of a kind and a length
_XLOG_DATA: Final = 25  # bytes of what it is, two positions and a time
_STREAM_HEAD: Final = _HEAD + _XLOG_DATA + 2  # and of a message's kind, and the flags of those that have any
_WITHIN: Final = b"BIUDTRYOSEAb"  # an empty kind is in it too

_Segment: TypeAlias = tuple[Literal["pass", "drop", "insert"], bytes]
_STEPS: Final[dict[str, type[Pass | Drop | Insert]]] = {"pass": Pass, "drop": Drop, "insert": Insert}


class Replies:
    """See the module's docstring."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rest = b""  # the beginning of a message that has to be whole
        self._skip = 0  # bytes of a message that passes, still to come
        self._segments: list[_Segment] = []  # what was read and not said
        self._kept = 0
        self._held = b""  # the end of a statement, until its unit has ended well
        self._behind = b""  # what is said behind that
        self._unit: Transaction | None = None  # whose replies these are
        self._read_kinds = {
            ord("Z"): self._ready,
            ord("E"): self._error,
            ord("C"): self._complete,
            ord("I"): self._complete,
            ord("s"): self._complete,
            ord("T"): self._described,
            **dict.fromkeys(_ENDS, self._short),
        }

    def read(self, data: bytes) -> Iterator[Step]:
        """The steps that `data` makes possible."""
        session = self._session
        data = self._rest + data if self._rest else data
        self._rest = b""
        size = len(data)
        at = min(self._skip, size)
        self._skip -= at
        self._turn()
        start = 0  # from here to `at` it is to pass
        try:
            while at + _HEAD <= size:
                kind = data[at]
                if kind in (_ROW, _COPY) and not (session.streaming or self._dropping):
                    while at + _HEAD <= size and data[at] == kind:
                        at += 1 + _length(data, at + 1)[0]
                    continue
                end = self._end_of(data, at, size)
                if not end:
                    break
                drop, ended = self._message(kind, data[at + _HEAD : end])
                start = self._separate(data, start, at, end if drop else 0)
                at = end
                if ended is not None:
                    self._pass_on(data[start:at])
                    start = at
                    self._turn()
                    yield from self._end(ended)
        except NotUnderstood:
            self._pass_on(data[start:at])
            self._rest = data[at:]
            raise
        if at > size:
            self._skip, at = at - size, size
        self._rest = data[at:]
        self._pass_on(data[start:at])
        if self._kept > LIMIT:
            session.keeping = False
        if not session.keeping:
            yield from self.let_go()

    def end(self) -> Iterator[Step]:
        """The server says nothing more; an error may have been its last word to an effect."""
        head = self._session.expected[0] if self._session.expected else None
        if head is not None and head.number and head.error:
            yield from self._end(head)

    def close(self) -> Iterator[Step]:
        """What is left when no more will come, or nothing is understood any more."""
        self._pass_on(self._rest)
        self._rest = b""
        yield from self.let_go()

    def let_go(self) -> Iterator[Step]:
        """Everything that was kept."""
        segments, self._segments, self._kept = self._segments, [], 0
        for what, piece in segments:
            yield _STEPS[what](piece)

    @property
    def _dropping(self) -> bool:
        expected = self._session.expected
        return bool(expected) and expected[0].drop

    def _end_of(self, data: bytes, at: int, size: int) -> int:
        """Where the message ends that begins at `at`; 0 if too little of it is there."""
        [length] = _length(data, at + 1)
        if not 4 <= length <= _LONGEST:  # noqa: PLR2004 - the length counts itself
            raise NotUnderstood(f"not Postgres: a reply beginning {data[at : at + 8]!r}")
        end = at + 1 + length
        needed = min(end, at + _STREAM_HEAD) if data[at] == _COPY and self._session.streaming else end
        return 0 if needed > size else end

    def _separate(self, data: bytes, start: int, at: int, drop_to: int) -> int:
        """A message begins at `at`. If it is dropped, or something is put before it, what is before passes by itself.

        Returns where what passes next begins.
        """
        if drop_to:
            self._pass_on(data[start:at])
            self._segments.append(("drop", data[at:drop_to]))
            self._turn()
            return drop_to
        if data[at] in b"ZE" and (self._held or self._behind):
            self._pass_on(data[start:at])
            self._release(well=data[at] == ord("Z"))
            return at
        return start

    def _pass_on(self, data: bytes) -> None:
        if data:
            if self._unit is not None:
                self._unit.remember_reply(data)
            self._segments.append(("pass", data))
            self._kept += len(data)

    def _turn(self) -> None:
        """What comes next belongs to the request that is answered now."""
        expected = self._session.expected
        self._unit = expected[0].transaction if expected else None

    def _release(self, *, well: bool) -> None:
        """Say that a statement is complete, or never do: its commit has failed."""
        if self._held and well:
            self._segments.append(("insert", self._held))
        if self._behind:
            self._segments.append(("insert", self._behind))
        self._held = self._behind = b""

    def _end(self, ended: Expected) -> Iterator[Step]:
        """The reply to a unit is complete: say it, as an answer if the unit was an effect."""
        self._session.keeping = False
        if ended.number:
            unclear = bool(ended.error) and is_unclear(ended.error)
            refused = bool(ended.error or ended.refused)
            outcome: Outcome = "unclear" if unclear else "refused" if refused else "done"
            said = b"".join(piece for what, piece in self._segments if what != "drop")
            first = next((at for at, (what, _) in enumerate(self._segments) if what != "drop"), len(self._segments))
            for _, piece in self._segments[:first]:
                yield Drop(piece)
            self._segments = self._segments[first:]
            data = self._segments.pop(0)[1] if self._segments and self._segments[0][0] == "pass" else b""
            yield Answer(ended.number, outcome, data, (said[:LIMIT],))
        yield from self.let_go()
        if ended.instead:
            yield Insert(ended.instead)

    def _stream(self, head: bytes) -> None:
        """A message of pgoutput_ that a confirmation can be about: all but those within a transaction.

        Of another plugin's, what does not begin like one of these counts; it is not known what it ends.

        .. _pgoutput: https://www.postgresql.org/docs/17/protocol-logicalrep-message-formats.html
        """
        kind, flags = head[_XLOG_DATA : _XLOG_DATA + 1], head[_XLOG_DATA + 1 : _XLOG_DATA + 2]
        if head[:1] == b"w" and kind not in _WITHIN and (kind, flags) != (b"M", b"\x01"):
            self._session.unconfirmed += struct.unpack_from("!Q", head, 1)

    def _message(self, kind: int, body: bytes) -> tuple[bool, Expected | None]:
        """Whether a message ends here, and the request that it ends, if that ends a unit."""
        session = self._session
        read = self._read_kinds.get(kind)
        if read is not None:
            return read(kind, body)
        head = session.expected[0] if session.expected else None
        hidden = head is not None and kind in head.hides
        if kind == _ROW and head is not None:
            if head.ask is not None:
                head.ask.answer(first_value(body))
        elif kind == _COPY:
            self._stream(body)
        elif kind == ord("K"):
            session.cancel_request = struct.pack("!ii", 8 + len(body), CANCEL) + body
        elif kind not in _PASSING:
            raise NotUnderstood(f"a reply of the kind {chr(kind)!r}")
        if kind in b"SA" and self._held:
            self._behind += _framed(kind, body)  # settings and notifications are told at the very end
            return True, None
        if kind in b"GW":
            session.copying, session.streaming = kind == ord("G"), kind == ord("W")
            session.keeping = False  # the client is to go on
        return hidden or (self._dropping and kind not in _ASYNCHRONOUS), None

    def _short(self, kind: int, _: bytes) -> tuple[bool, Expected | None]:
        expected = self._session.expected
        if not expected or expected[0].of != _ENDS[kind]:
            raise NotUnderstood(f"a reply {chr(kind)!r} to {expected[0].of if expected else 'nothing'}")
        ended = expected.popleft()
        return ended.drop or kind in ended.hides, None

    def _ready(self, _: int, body: bytes) -> tuple[bool, Expected | None]:
        ended = self._session.ready(body[:1])
        if ended is None:
            raise NotUnderstood("the server is ready, and was asked nothing")
        if ended.instead:
            self._release(well=False)
        hidden = ended.drop or b"Z" in ended.hides
        return hidden, None if hidden and not ended.instead else ended

    def _error(self, _: int, body: bytes) -> tuple[bool, Expected | None]:
        session = self._session
        head = session.failed(body)
        if head is None:
            return False, None
        if session.refused:
            ended = session.refused.pop(0)
            ended.error = body
            return False, ended
        return bool(head.instead) or (head.ask is not None and head.ask.alone and not is_fatal(body)), None

    def _complete(self, kind: int, body: bytes) -> tuple[bool, Expected | None]:
        session = self._session
        head = session.expected[0] if session.expected else None
        if head is None or head.of not in {"execute", "query"}:
            raise NotUnderstood(f"a reply {chr(kind)!r} to {head.of if head else 'nothing'}")
        if kind == ord("I") and head.of == "query":
            return False, None
        session.complete(body.rstrip(b"\0") if kind == ord("C") else b"")
        if head.ask is not None and head.ask.assigned is None:
            head.ask.assigned = False
        if head.holds and not head.statements:
            self._held = _framed(kind, body)
            return True, None
        return head.drop or kind in head.hides, head if head.number and head.of == "execute" else None

    def _described(self, _: int, __: bytes) -> tuple[bool, Expected | None]:
        session = self._session
        drop = bool(session.expected) and session.expected[0].drop
        if session.expected and session.expected[0].of == "describe":
            session.expected.popleft()
        return drop, None


def _framed(kind: int, body: bytes) -> bytes:
    return message(bytes((kind,)), body)
