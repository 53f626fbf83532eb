"""What a transaction of a Postgres session has done, as far as texts, tags and the server's word tell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from chaos.wire.postgres_sql import Statement

if TYPE_CHECKING:
    from chaos.wire.postgres_sql import Kind

LIMIT: Final = 64 * 1024
"""Bytes of contents that are remembered for a transaction, and of its rows, and of replies that are kept back."""

UNSURE: Final = Statement(b"", "write")
"""What nothing is known of."""

END: Final = Statement(b"ROLLBACK", "rollback")
"""What ends a block, one way or the other."""

INERT: Final[frozenset[Kind]] = frozenset(
    ("empty", "begin", "commit", "rollback", "savepoint", "rollback to", "release", "copy out", "harmless")
)
_DIGITS: Final = 20  # of an id of 64 bits
_ENDS: Final = frozenset(("commit", "rollback", "prepare transaction"))
_COUNTED: Final = frozenset((b"INSERT", b"UPDATE", b"DELETE", b"MERGE", b"COPY"))


def reads(statement: Statement) -> bool:
    """Whether it surely writes nothing; what is behind a FROM may be a view of anything."""
    return statement.kind == "read" and b"from" not in statement.text.lower()


def may_write(statement: Statement) -> bool:
    """Whether something may be left of it if it is committed."""
    return statement.kind not in INERT and not reads(statement)


def _wrote(statement: Statement, tag: bytes) -> bool:
    """Whether an id that the transaction has may come from this statement and stand for something that stays."""
    if not may_write(statement):
        return False
    text = statement.text.lower()
    verb, _, rest = tag.partition(b" ")
    if verb in _COUNTED and not text.lstrip().startswith(b"with"):
        return rest.rpartition(b" ")[2] != b"0"
    # A row lock needs an id, no more. A sequence does now and then, when it has used up what it set aside.
    return statement.kind != "read" or not (b"for" in text or b"nextval" in text)


@dataclass(slots=True)
class Ask:
    """Whether the transaction has an id: None until the server has said so. An error makes it moot, `error` if alone.

    Alone: with a Sync of its own, so that an error is the wire's to tell. `xid` is the id as it is in the log and in
    rows, without its epoch; 0, which none has, where nobody was asked or none is assigned.
    """

    alone: bool = False
    assigned: bool | None = None
    error: bytes = b""
    xid: int = 0

    def answer(self, value: bytes | None) -> None:
        """The server has said an id, or null."""
        self.assigned = value is not None
        if value is not None and len(value) <= _DIGITS and value.isdigit():
            self.xid = int(value) % (1 << 32)

    @property
    def evidence(self) -> tuple[str, ...]:
        """What can be found of a transaction that is committed."""
        return (f"xid:{self.xid}",) if self.xid else ()


@dataclass(slots=True)
class _Level:
    name: bytes
    wrote: bool = False
    notified: bool = False


@dataclass(slots=True)
class Transaction:
    """What it has done savepoint by savepoint, for they can be rolled back; and where its keys are looked for."""

    levels: list[_Level] = field(default_factory=lambda: [_Level(b"")])
    contents: list[bytes] = field(default_factory=list)
    room: int = LIMIT
    read: bytearray = field(default_factory=bytearray)  # in one piece, as it comes in pieces that end anywhere
    copied: bytearray = field(default_factory=bytearray)  # likewise

    def remember(self, *pieces: bytes) -> None:
        """Where keys will be looked for, as long as there is room."""
        for piece in pieces:
            if self.room > 0 and piece:
                self.contents.append(piece[: self.room])
                self.room -= len(piece)

    def remember_reply(self, piece: bytes) -> None:
        """The same for what it reads."""
        if len(self.read) < LIMIT:
            self.read += piece[: LIMIT - len(self.read)]

    def remember_copied(self, piece: bytes) -> None:
        """The same for what it copies in."""
        if len(self.copied) < LIMIT:
            self.copied += piece[: LIMIT - len(self.copied)]

    @property
    def whole(self) -> tuple[bytes, ...]:
        """All that is remembered."""
        return (*self.contents, *(bytes(more) for more in (self.read, self.copied) if more))

    def done(self, statement: Statement, tag: bytes) -> None:
        """A statement is complete."""
        kind, name, top = statement.kind, statement.name, self.levels[-1]
        if kind in _ENDS:
            self.levels = [_Level(b"")]
        elif kind == "savepoint":
            self.levels.append(_Level(name))
        elif kind in {"rollback to", "release"}:
            self._end(name, keep=kind == "release")
        else:
            top.wrote = top.wrote or _wrote(statement, tag)
            top.notified = top.notified or (statement.notifies and tag != b"SELECT 0")

    def _end(self, name: bytes, *, keep: bool) -> None:
        """Give up a savepoint and those after it; ROLLBACK TO leaves one of its name."""
        at = max((at for at, level in enumerate(self.levels) if at and level.name == name), default=0)
        if not at:
            return
        ended, self.levels = self.levels[at:], self.levels[:at]
        if keep:
            outer = self.levels[-1]
            outer.wrote = outer.wrote or any(level.wrote for level in ended)
            outer.notified = outer.notified or any(level.notified for level in ended)
        else:
            self.levels.append(_Level(name))

    def wrote(self, ask: Ask) -> bool:
        """Whether to commit it is an effect."""
        if ask.assigned is None or ask.error:
            return False
        return any(level.notified or (level.wrote and ask.assigned) for level in self.levels)
