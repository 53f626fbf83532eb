"""What both directions of a Postgres connection share: which replies are expected, and what the session's state is.

Replies come in the order of the requests; so each request that is answered leaves an `Expected`, and a reply belongs to
the first of these. An error in the extended protocol ends everything up to the next Sync without a further word.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from chaos.wire.postgres_transaction import UNSURE, Transaction

if TYPE_CHECKING:
    from chaos.wire.postgres_sql import Statement
    from chaos.wire.postgres_transaction import Ask


class NotUnderstood(Exception):
    """Why the connection is raw from here on."""


ReplyOf = Literal["startup", "parse", "bind", "describe", "execute", "close", "sync", "query"]


@dataclass(slots=True, eq=False)
class Expected:
    """What the server still has to say to one request."""

    of: ReplyOf
    drop: bool = False  # the client is to see nothing of it
    hides: bytes = b""  # kinds of messages that it is not to see
    relents: bool = False  # after an error it is to see them
    holds: bool = False  # the last of its statements is complete when its unit is
    statements: tuple[Statement, ...] | None = ()  # None: nobody knows
    transaction: Transaction | None = None
    ask: Ask | None = None
    number: int = 0  # of the effect that this is, or that ends with it
    instead: bytes = b""  # what the client is told in place of the reply
    error: bytes = b""
    refused: bool = False
    prepares: tuple[bytes, Statement | None] | None = None  # a name, and what it meant before
    guesses: int = 0  # how often the session's state had been predicted when it was sent

    @property
    def ends(self) -> bool:
        """Whether its reply ends with ReadyForQuery."""
        return self.of in {"sync", "query", "startup"}


class Session:
    """See the module's docstring."""

    def __init__(self) -> None:
        self.transaction = Transaction()  # of the last request
        self.expected: deque[Expected] = deque([Expected("startup")])
        self.status = b"I"  # I idle, T in a block, E in a failed one: as of the last reply
        self.predicted = b"I"  # as of the last request, if nothing fails
        self.unsure = False  # whether `predicted` rests on a request that was not answered yet
        self._guesses = 0
        self.keeping = False  # replies are kept back until the one that ends the unit
        self.copying = False  # the server waits for a COPY's data
        self.streaming = False  # a replication stream runs
        self.unconfirmed: deque[int] = deque()  # where the transactions end that it was sent
        self.cancel_request = b""
        self.prepared: dict[bytes, Statement] = {}
        self.refused: list[Expected] = []  # effects that an error has ended before they were carried out
        self._skipping: bytes | None = None  # the error after which the server ignores everything up to a Sync

    def expect(self, expected: Expected) -> Expected:
        """A request goes out; what the server will say to it."""
        expected.transaction, expected.guesses = self.transaction, self._guesses
        if self._skipping is None:
            self.expected.append(expected)
        elif expected.of == "sync":
            expected.error, self._skipping = self._skipping, None
            self.expected.append(expected)
        else:
            self._moot(expected)
        return expected

    @property
    def skipping(self) -> bool:
        """Whether the server ignores what it is sent."""
        return self._skipping is not None

    def confirms(self, place: int) -> bool:
        """Whether a transaction ends up to there, of those that nobody has confirmed.

        None does where a client says where it is between two ends, as it may at any time.
        """
        before = len(self.unconfirmed)
        while self.unconfirmed and self.unconfirmed[0] <= place:
            self.unconfirmed.popleft()
        return len(self.unconfirmed) < before

    def prepare(self, name: bytes, statement: Statement) -> Expected:
        """A statement gets a name, if the server agrees."""
        before = self.prepared.get(name)
        self.prepared[name] = statement
        return self.expect(Expected("parse", prepares=(name, before)))

    def failed(self, body: bytes) -> Expected | None:
        """An ErrorResponse has come; the request that it ends first."""
        self.copying = False
        if not self.expected:
            return None
        head = self.expected[0]
        if head.ends:
            head.error = body
            head.hides = b"" if head.relents else head.hides
            return head
        ended = []
        while self.expected and not self.expected[0].ends:
            ended.append(self.expected.popleft())
        if self.expected and self.expected[0].of != "sync":
            raise NotUnderstood(f"an error in a batch that a {self.expected[0].of} ends")
        for one in reversed(ended):
            if one.ask is not None:
                one.ask.error = body
            self._moot(one)
        if self.expected:
            self.expected[0].error = body
        else:
            self._skipping = body
        return head

    def ready(self, status: bytes) -> Expected | None:
        """A ReadyForQuery has come; the request that it ends."""
        if not self.expected:
            return None
        ended = self.expected.popleft()
        if not ended.ends:
            raise NotUnderstood(f"the server is ready, and has not answered a {ended.of}")
        self.status = status
        self.copying = self.streaming = False
        if ended.guesses == self._guesses:
            self.predicted, self.unsure = status, False
        return ended

    def complete(self, tag: bytes) -> Expected:
        """A statement is complete; its request."""
        head = self.expected[0]
        self.copying = False
        statement = UNSURE if head.statements is None else None
        if head.statements:
            statement, *rest = head.statements
            head.statements = tuple(rest)
        if statement is not None:
            if head.transaction is not None:
                head.transaction.done(statement, tag)
            self.status = _after(statement, self.status) or self.status
        head.refused = head.refused or (tag == b"ROLLBACK" and bool(head.number))
        if head.of == "execute":
            self.expected.popleft()
        return head

    def predict(self, *statements: Statement) -> None:
        """Statements go out that may open or end a block."""
        for statement in statements:
            after = _after(statement, self.predicted)
            if after:
                self.predicted, self.unsure = after, True
                self._guesses += 1

    def _moot(self, entry: Expected) -> None:
        if entry.ask is not None:
            entry.ask.assigned = False
        if entry.prepares is not None:
            name, before = entry.prepares
            if before is not None:
                self.prepared[name] = before
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
