"""What both directions of a Postgres connection share: replies that are expected, and what a transaction has done.

Replies come in the order of the requests; so each request that is answered leaves an `Expected`, and a reply belongs to
the first of these. An error in the extended protocol ends everything up to the next Sync without a further word.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.wire.postgres_sql import Statement

LIMIT: Final = 64 * 1024
"""Bytes of replies that are kept back at most, and of contents that are remembered for a transaction."""

_COUNTED: Final = frozenset((b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"COPY"))
_NOTHING: Final = frozenset(
    ("empty", "begin", "commit", "rollback", "savepoint", "rollback to", "release", "copy out", "harmless")
)


class NotUnderstood(Exception):
    """Why the connection is raw from here on."""


@dataclass(slots=True)
class Ask:
    """Whether the transaction has an id: None until the server has said so. An error before it makes it moot."""

    assigned: bool | None = None


@dataclass(slots=True)
class Transaction:
    """What a transaction has done, by the server's word: savepoint by savepoint, for they can be rolled back."""

    levels: list[tuple[bytes, bool]] = field(default_factory=lambda: [(b"", False)])
    notifies: bool = False
    contents: list[bytes] = field(default_factory=list)
    room: int = LIMIT
    replies: int = LIMIT

    def remember(self, *pieces: bytes) -> None:
        """Where keys will be looked for, as long as there is room."""
        for piece in pieces:
            if self.room > 0 and piece:
                self.contents.append(piece[: self.room])
                self.room -= len(piece)

    def done(self, statement: Statement | None, tag: bytes) -> None:
        """A statement is complete."""
        kind = statement.kind if statement else "write"
        name = statement.name if statement else b""
        if kind == "savepoint":
            self.levels.append((name, False))
        elif kind in {"rollback to", "release"} and any(name == level for level, _ in self.levels):
            self._end(name, keep=kind == "release")
        elif statement is None or self._may_have_written(statement, tag):
            self.levels[-1] = (self.levels[-1][0], True)
        self.notifies = self.notifies or bool(statement and statement.notifies)

    def _end(self, name: bytes, *, keep: bool) -> None:
        """Give up a savepoint and what came after it; its level itself stays after ROLLBACK TO."""
        wrote = False
        while True:
            level, did = self.levels.pop()
            wrote = wrote or did
            if level == name or not self.levels:
                break
        if not keep:
            self.levels.append((name, False))
        elif wrote or not self.levels:
            outer, did = self.levels.pop() if self.levels else (b"", False)
            self.levels.append((outer, did or wrote))

    @staticmethod
    def _may_have_written(statement: Statement, tag: bytes) -> bool:
        """Whether an id that the transaction has may come from this statement and stand for something that stays."""
        if statement.kind in _NOTHING:
            return False
        text = statement.text.lstrip()[:4].lower()
        verb, _, rest = tag.partition(b" ")
        if verb in _COUNTED and text != b"with":
            return rest.rpartition(b" ")[2] != b"0"
        return statement.kind != "read" or b"for" not in statement.text.lower()  # a row lock needs an id, no more

    def wrote(self, ask: Ask) -> bool:
        """Whether to commit it is an effect."""
        return self.notifies or bool(ask.assigned and any(did for _, did in self.levels))


ReplyOf = Literal["startup", "parse", "bind", "describe", "execute", "close", "sync", "query"]


@dataclass(slots=True, eq=False)
class Expected:
    """What the server still has to say to one request."""

    of: ReplyOf
    drop: bool = False
    statements: tuple[Statement, ...] | None = ()
    transaction: Transaction | None = None
    ask: Ask | None = None
    number: int = 0  # of the effect that this is, or that ends with it
    converted: bool = False  # the client sent a simple Query
    instead: bytes = b""  # what the client is told in place of the reply
    error: bytes = b""
    refused: bool = False


class Session:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.expected: deque[Expected] = deque([Expected("startup")])
        self.status = b"I"  # I idle, T in a block, E in a failed one: as of the last reply
        self.predicted = b"I"  # as of the last request, if nothing fails
        self.unsure = False  # whether `predicted` rests on a request that was not answered yet
        self.keeping = False  # replies are kept back until the one that ends the unit
        self.copying = self.replicating = False
        self.cancel_request = b""
        self.refused: list[Expected] = []  # effects that an error has ended before they were carried out
        self._skipping: bytes | None = None  # the error after which the server ignores everything up to a Sync

    def expect(self, of: ReplyOf, **more: object) -> Expected:
        """A request goes out; what the server will say to it."""
        made = Expected(of, **more)  # type: ignore[arg-type]
        if self._skipping is None:
            self.expected.append(made)
        elif of == "sync":
            made.error, self._skipping = self._skipping, None
            self.expected.append(made)
        else:
            self._moot(made)
        return made

    @property
    def skipping(self) -> bool:
        """Whether the server ignores what it is sent."""
        return self._skipping is not None

    def failed(self, body: bytes) -> None:
        """An ErrorResponse has come."""
        head = self.expected[0] if self.expected else None
        if head is None or head.of in {"query", "startup", "sync"}:
            if head is not None:
                head.error = body
            return
        while self.expected and self.expected[0].of != "sync":
            self._moot(self.expected.popleft())
        if self.expected:
            self.expected[0].error = body
        else:
            self._skipping = body

    def ready(self, status: bytes) -> Expected | None:
        """A ReadyForQuery has come; the request that it ends."""
        if not self.expected:
            return None
        ended = self.expected.popleft()
        if ended.of not in {"query", "startup", "sync"}:
            raise NotUnderstood(f"the server is ready, and has not answered a {ended.of}")
        self.status = status
        self.copying = False
        if not self.expected:
            self.predicted, self.unsure = status, False
        return ended

    def complete(self, tag: bytes) -> Expected | None:
        """A statement is complete; its request, if that ends with it."""
        head = self.expected[0] if self.expected else None
        if head is None or head.of not in {"execute", "query"}:
            return None
        self.copying = False
        statement = None
        if head.statements:
            statement, *rest = head.statements
            head.statements = tuple(rest)
        elif head.statements is not None and head.of == "query":
            return head
        if head.transaction is not None:
            head.transaction.done(statement, tag)
        if statement is not None:
            self._control(statement)
        if head.of == "execute":
            head.refused = tag == b"ROLLBACK" and bool(head.number)
            return self.expected.popleft()
        head.refused = head.refused or (tag == b"ROLLBACK" and bool(head.number))
        return head

    def predict(self, statement: Statement) -> None:
        """A statement goes out that may open or end a block."""
        after = _after(statement, self.predicted)
        if after:
            self.predicted, self.unsure = after, True

    def _control(self, statement: Statement) -> None:
        self.status = _after(statement, self.status) or self.status

    def _moot(self, entry: Expected) -> None:
        if entry.ask is not None:
            entry.ask.assigned = False
        if entry.number:
            entry.refused = True
            self.refused.append(entry)


def _after(statement: Statement, status: bytes) -> bytes:
    """The state of the session after a statement that changes it; empty for the others."""
    if statement.kind == "begin":
        return b"T" if status == b"I" else b""
    if statement.kind in {"commit", "rollback", "prepare transaction"}:
        return b"T" if statement.chain else b"I"
    return b""


def texts(statements: tuple[Statement, ...]) -> Iterator[bytes]:
    """The text of each."""
    return (statement.text for statement in statements)
