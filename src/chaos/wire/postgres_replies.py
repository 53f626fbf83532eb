"""The server's side of a Postgres connection: whose reply each message is, and what it says about transactions.

Rows are not looked at, and leave in the chunks they came in; this is the path of a bulk read. What answers the wire's
own questions is dropped. While `Session.keeping`, what the client is to see is kept back, up to `LIMIT` bytes, so that
a reply can be lost whole.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from chaos.wire.postgres_messages import CANCEL, first_value, is_unclear
from chaos.wire.postgres_session import LIMIT, Expected, NotUnderstood, Session
from chaos.wire.steps import Answer, Drop, Insert, Pass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.steps import Outcome, Step

_LONGEST: Final = 1 << 30
_length = struct.Struct("!I").unpack_from
_ROW, _COPY = ord("D"), ord("d")
_ASYNCHRONOUS: Final = frozenset(b"SANv")
_PASSING: Final = frozenset(b"RSANVvtHcG")
_ENDS: Final = {ord("1"): "parse", ord("2"): "bind", ord("3"): "close", ord("n"): "describe"}


class Replies:
    """See the module's docstring."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._rest = b""  # the beginning of a message that has to be whole
        self._skip = 0  # bytes of a message that passes, still to come
        self._segments: list[tuple[bool, bytes]] = []  # what was read and not said: whether it ends here
        self._kept = 0
        self._complete_of_query = False
        self._last_complete = -1  # where the end of the last statement of a converted Query is kept
        self.remember: Callable[[bytes], None] | None = None  # told the beginning of what a transaction reads
        self._read_kinds = {
            ord("Z"): self._ready,
            ord("E"): self._error,
            ord("C"): self._complete,
            ord("I"): self._complete,
            ord("s"): self._complete,
            ord("T"): self._described,
        }

    def read(self, data: bytes) -> Iterator[Step]:
        """The steps that `data` makes possible."""
        session = self._session
        data = self._rest + data if self._rest else data
        self._rest = b""
        size = len(data)
        at = min(self._skip, size)
        self._skip -= at
        start = 0  # from here to `at` it is to pass
        while at + 5 <= size:
            kind = data[at]
            dropping = bool(session.expected) and session.expected[0].drop
            if kind in (_ROW, _COPY) and not dropping:
                while at + 5 <= size and data[at] == kind:
                    at += 1 + _length(data, at + 1)[0]
                continue
            [length] = _length(data, at + 1)
            if not 4 <= length <= _LONGEST:  # noqa: PLR2004 - the length counts itself
                raise NotUnderstood(f"not Postgres: a reply beginning {data[at : at + 8]!r}")
            end = at + 1 + length
            if end > size:
                break
            drop, answer = self._message(kind, data[at + 5 : end], dropping=dropping)
            if drop:
                self._add(data[start:at], data[at:end])
                start = end
            elif self._complete_of_query:
                self._complete_of_query = False
                self._add(data[start:at])
                self._last_complete = len(self._segments)
                self._add(data[at:end])
                start = end
            at = end
            if answer is not None:
                self._add(data[start:at])
                start = at
                yield from self._end(answer)
        if at > size:
            self._skip, at = at - size, size
        self._rest = data[at:]
        passing = data[start:at]
        if self.remember is not None and passing:
            self.remember(passing)
        self._add(passing)
        if self._kept > LIMIT:
            session.keeping = False
        if not session.keeping:
            yield from self.let_go()

    def close(self) -> Iterator[Step]:
        """What is left when no more will come, or nothing is understood any more."""
        self._add(self._rest)
        self._rest = b""
        yield from self.let_go()

    def let_go(self) -> Iterator[Step]:
        """Everything that was kept."""
        segments, self._segments, self._kept, self._last_complete = self._segments, [], 0, -1
        for drop, piece in segments:
            yield Drop(piece) if drop else Pass(piece)

    def _add(self, passing: bytes, dropped: bytes = b"") -> None:
        if passing:
            self._segments.append((False, passing))
            self._kept += len(passing)
        if dropped:
            self._segments.append((True, dropped))

    def _end(self, ended: Expected) -> Iterator[Step]:
        """The reply to a unit is complete: say it, as an answer if the unit was an effect."""
        self._session.keeping = False
        if ended.instead:
            self._not_complete()
        if ended.number:
            unclear = bool(ended.error) and is_unclear(ended.error)
            refused = bool(ended.error or ended.refused)
            outcome: Outcome = "unclear" if unclear else "refused" if refused else "done"
            whole = b"".join(piece for drop, piece in self._segments if not drop)
            first = next((at for at, (drop, _) in enumerate(self._segments) if not drop), len(self._segments))
            for _, piece in self._segments[:first]:
                yield Drop(piece)
            data = self._segments[first][1] if first < len(self._segments) else b""
            self._segments = self._segments[first + 1 :]
            yield Answer(ended.number, outcome, data, (whole[:LIMIT],))
        yield from self.let_go()
        if ended.instead:
            yield Insert(ended.instead)

    def _message(self, kind: int, body: bytes, *, dropping: bool) -> tuple[bool, Expected | None]:
        """Whether a message ends here, and the request that it ends, if that ends a unit."""
        session = self._session
        read = self._read_kinds.get(kind)
        if read is not None:
            return read(kind, body)
        if kind in _ENDS:
            head = session.expected[0] if session.expected else None
            if head is None or head.of != _ENDS[kind]:
                raise NotUnderstood(f"a reply {chr(kind)!r} to {head.of if head else 'nothing'}")
            session.expected.popleft()
            return dropping or (head.of == "describe" and head.converted), None
        if kind == ord("K"):
            session.cancel_request = struct.pack("!ii", 8 + len(body), CANCEL) + body
        elif kind == ord("W"):
            session.replicating = True
        elif kind == _ROW:
            ask = session.expected[0].ask
            if ask is not None:
                ask.assigned = first_value(body) is not None
        elif kind == ord("N"):
            return dropping, None
        elif kind not in _PASSING:
            raise NotUnderstood(f"a reply of the kind {chr(kind)!r}")
        if kind == ord("G"):
            session.copying = True
        return dropping and kind not in _ASYNCHRONOUS, None

    def _ready(self, _: int, body: bytes) -> tuple[bool, Expected | None]:
        ended = self._session.ready(body[:1])
        if ended is None:
            raise NotUnderstood("the server is ready, and was asked nothing")
        return ended.drop, None if ended.drop and not ended.instead else ended

    def _error(self, _: int, body: bytes) -> tuple[bool, Expected | None]:
        session = self._session
        head = session.expected[0] if session.expected else None
        session.failed(body)
        if head is not None and head.of == "sync":
            self._not_complete()
        if session.refused:
            ended = session.refused.pop(0)
            ended.error = body
            return False, ended
        return head is not None and bool(head.instead), None

    def _not_complete(self) -> None:
        """In one simple Query, a statement whose commit fails was never complete."""
        if self._last_complete >= 0:
            self._segments[self._last_complete] = (True, self._segments[self._last_complete][1])
            self._last_complete = -1

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
        self._complete_of_query = head.converted and session.keeping
        return head.drop, head if head.number and head.of == "execute" else None

    def _described(self, _: int, __: bytes) -> tuple[bool, Expected | None]:
        session = self._session
        drop = bool(session.expected) and session.expected[0].drop
        if session.expected and session.expected[0].of == "describe":
            session.expected.popleft()
        return drop, None
