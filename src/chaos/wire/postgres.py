"""The Postgres protocol: what commits something, decided by the server's word before it is committed.

Problem: only the server knows whether a commit changes anything, and it says so when it is too late.

Things that don't work:

- Regular expressions for SQL: DO, SELECT f(), WITH … INSERT, EXECUTE, comments, pipelined COMMITs, prepared names.
- The transaction's id alone: nextval, a row lock, a savepoint that was rolled back have one too.
- The tags alone: an UPDATE of no row, a SELECT that calls a function.
- A second session that looks at the worker's: one more connection and its rights, 120 µs, and nothing about a statement
  that the server executes and commits in one go.

Solution: the wire asks in the worker's own session, inside the transaction, in sequence with everything else, whether
that transaction has an id (`Ask`; the answer never reaches the client), and adds what the tags and rows said
(`Transaction`). For that, the commit has to be a request of its own:

====================================== ==========================================================================
COMMIT, END, PREPARE TRANSACTION       the question goes first, then the COMMIT: site ``postgres.commit``
a Sync after statements in no block    Flush and the question go first, then the Sync: ``postgres.write``
a simple Query in no block             is sent as Parse, Bind, Describe, Execute of each of its statements, which is one
                                       transaction too, then as above. The client sees the replies of a simple Query
COPY FROM STDIN by a simple Query      its CopyDone, if it sent any data: ``postgres.write``
what commits within its execution      CALL, VACUUM, CREATE DATABASE, COMMIT PREPARED, a function call, a text that the
                                       lexer is not sure of: an effect on arrival
standby status update                  if it confirms more than the ones before: ``postgres.confirm``, unanswered
====================================== ==========================================================================

Requests for encryption are answered no, so that clients who merely prefer it go on in plain.

Known limits: a view over a function that writes is taken for a read where there is no FROM to be seen. COMMIT in a
pipeline cannot be refused. A statement fetched through a cursor is taken for a read. A converted text with several
statements reports error positions from the statement's own beginning.
"""

from __future__ import annotations

import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from chaos.wire.postgres_messages import (
    CANCEL,
    COPY_FAIL,
    FLUSH,
    GSSENC,
    MAJOR,
    SSL,
    SYNC,
    TERMINATE,
    ask,
    error,
    message,
    parameters,
    run,
    strings,
)
from chaos.wire.postgres_replies import Replies
from chaos.wire.postgres_session import LIMIT, Ask, Expected, NotUnderstood, Session, Transaction
from chaos.wire.postgres_sql import Statement, statements
from chaos.wire.steps import Delivered, Drop, Effect, Insert, Pass, Raw, Reply, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.postgres_session import ReplyOf
    from chaos.wire.steps import Step

LONGEST: Final = 256 << 20
"""A message that is longer is not read."""

_WAIT: Final = Wait()
_TLS: Final = b"\x16\x03"
_COPY: Final = ord("d")
_SQLSTATE: Final = 5
_END_OF_COPY, _STANDBY = "the end of a COPY", "a standby's word"
_START: Final = 8  # bytes of a length and a code
_INERT: Final = frozenset(("empty", "begin", "commit", "rollback", "savepoint", "rollback to", "release", "harmless"))
_AT_ONCE: Final = {
    "at once": "postgres.write",
    "call": "postgres.write",
    "commit prepared": "postgres.commit_prepared",
    "rollback prepared": "postgres.rollback_prepared",
}
_COMMITS: Final = {"commit": "postgres.commit", "prepare transaction": "postgres.prepare_transaction"}
_ASKED: Final[tuple[ReplyOf, ...]] = ("parse", "bind", "execute", "close")
_RUN: Final[tuple[ReplyOf, ...]] = ("parse", "bind", "describe", "execute")
_UNSURE: Final = Statement(b"", "write")


def _reads(statement: Statement) -> bool:
    """Whether it surely writes nothing; what is behind a FROM may be a view of anything."""
    return statement.kind == "read" and b"from" not in statement.text.lower()


class Postgres:
    """One connection; a `chaos.wire.steps.WireProtocol`."""

    kept = False

    def __init__(self) -> None:
        self.not_understood: Counter[str] = Counter()
        self._session = Session()
        self._replies = Replies(self._session)
        self._read: Callable[[], Iterator[Step]] = self._start_up
        self._in = bytearray()
        self._skip = 0  # bytes of COPY data that pass, still to come
        self._out = bytearray()  # read, passing, not said
        self._started = self._raw = False
        self._prepared: dict[bytes, Statement] = {}
        self._portals: dict[bytes, Statement] = {}
        self._asked = self._number = 0
        self._answer = Ask()
        self._flushed_lsn = 0
        self._transaction, self._executed, self._copied = Transaction(), False, False
        self._replies.remember = self._remember_reply
        self._holds = ""  # what kind of request the effect is that was said last; empty once it went on
        self._refusal = ""
        self._kinds: dict[int, Callable[[bytes, bytes], Iterator[Step]]] = {
            ord("Q"): self._query,
            ord("P"): self._parse,
            ord("B"): self._bind,
            ord("E"): self._execute,
            ord("D"): self._describe,
            ord("C"): self._close,
            ord("S"): self._sync,
            ord("F"): self._function_call,
            ord("c"): self._copy_done,
        }

    # -- the contract --------------------------------------------------------------------------------------------

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        self._in += data
        if not self._raw:
            try:
                yield from self._read() if data else ()
            except NotUnderstood as why:
                self._raw = True
                yield Raw(str(why))
                yield from self._replies.close()
        if self._raw or not data:
            self._out += self._in
            self._in.clear()
        yield from self._pass_on()

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        if self._raw or not data:
            yield from self._replies.close()
            if data:
                yield Pass(data)
            return
        try:
            yield from self._replies.read(data)
        except NotUnderstood as why:
            self._raw = True
            yield Raw(str(why))
            yield from self._replies.close()

    def overdue(self) -> Iterator[Step]:
        """Nothing waits for more bytes of the client but half a message."""
        return iter(())

    @property
    def outstanding(self) -> int:
        """Replies that are expected; an effect that was said is one of them."""
        return len(self._session.expected) + (self._holds not in {"", _END_OF_COPY, _STANDBY})

    @property
    def cancel_request(self) -> bytes:
        """What cancels, on a connection of its own, whatever this session does."""
        return self._session.cancel_request

    def farewell(self) -> bytes:
        """Terminate; in the middle of a COPY its end first."""
        if not self._started:
            return b""
        return (COPY_FAIL if self._session.copying else b"") + TERMINATE

    def refuse(self, effect: Effect, sqlstate: str) -> Iterator[Step]:
        """Roll back, and tell the client `sqlstate` in place of the reply."""
        if len(sqlstate) != _SQLSTATE:
            raise ValueError(f"{sqlstate} is no SQLSTATE; to a commit can be said, for example, 40001 or 40P01")
        if self._holds not in {"query", "sync"}:
            raise ValueError(
                f"{effect.site} as {self._holds or 'it is'} cannot be refused, only a COMMIT or a Sync can"
            )
        self._refusal = sqlstate
        return self._refuse(effect)

    # -- reading requests ----------------------------------------------------------------------------------------

    def _pass_on(self) -> Iterator[Step]:
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            yield Pass(data)

    def _start_up(self) -> Iterator[Step]:
        while len(self._in) >= _START:
            if self._in.startswith(_TLS):
                raise NotUnderstood("TLS: the client encrypts, nothing can be seen")
            length, code = struct.unpack_from("!iI", self._in)
            if not _START <= length <= LIMIT:
                raise NotUnderstood(f"not Postgres: a start of {bytes(self._in[:8])!r}")
            if len(self._in) < length:
                return
            packet = self._take(length)
            if code in {SSL, GSSENC}:
                yield Drop(packet)
                yield Reply(b"N")
                continue
            self._out += packet
            if code == CANCEL:
                self._raw = True
                return
            if code >> 16 != MAJOR:
                raise NotUnderstood(f"version {code >> 16}.{code & 0xFFFF} of the Postgres protocol")
            self._started = True
            self._read = self._messages
            yield from self._messages()
            return

    def _messages(self) -> Iterator[Step]:
        while not self._raw:
            if self._skip:
                part = self._take(min(self._skip, len(self._in)))
                self._skip -= len(part)
                self._out += part
            if len(self._in) < 5:  # noqa: PLR2004 - a kind and a length
                return
            kind = self._in[0]
            [length] = struct.unpack_from("!I", self._in, 1)
            if not 4 <= length <= LONGEST:  # noqa: PLR2004 - the length counts itself
                raise NotUnderstood(f"not Postgres: a request beginning {bytes(self._in[:8])!r}")
            if kind == _COPY and not self._session.replicating:
                self._copied = self._copied or length > 4  # noqa: PLR2004 - likewise
                if self._transaction.room > 0:
                    self._transaction.remember(bytes(self._in[5 : 1 + min(length, LIMIT)]))
                self._skip = 1 + length
                continue
            if len(self._in) <= length:
                return
            read = self._kinds.get(kind, self._other)
            whole = self._take(1 + length)
            yield from read(whole, whole[5:])

    def _take(self, length: int) -> bytes:
        part = bytes(self._in[:length])
        del self._in[:length]
        return part

    def _begin_unit(self) -> None:
        """A transaction may begin here."""
        self._transaction = Transaction()
        self._executed = False  # anything that may have written, outside a block, since the last Sync
        self._copied = False
        self._replies.remember = self._remember_reply

    def _remember_reply(self, data: bytes) -> None:
        transaction = self._transaction
        if transaction.replies > 0:
            transaction.contents.append(data[: transaction.replies])
            transaction.replies -= len(data)
        else:
            self._replies.remember = None

    # -- effects -------------------------------------------------------------------------------------------------

    def _effect(self, site: str, holds: str, data: bytes, *, answered: bool = True) -> Effect:
        self._number += 1
        self._holds = holds
        self._session.keeping = answered
        return Effect(self._number, site, tuple(self._transaction.contents), data, answered=answered)

    def _went_on(self) -> bool:
        """The effect was carried out or refused; whether it went on."""
        self._holds = ""
        refused, self._refusal = self._refusal, ""
        return not refused

    def _say(self, site: str, holds: str, data: bytes, entry: Callable[[int], Expected]) -> Iterator[Step]:
        """An effect that is one message, and whose reply ends `entry`."""
        yield from self._pass_on()
        effect = self._effect(site, holds, data)
        yield effect
        if self._went_on():
            entry(effect.number)
        yield Delivered(effect.number)

    def _settled(self, *, all_of_it: bool) -> Iterator[Step]:
        """Wait until what was sent is answered: everything, or everything that ends with ReadyForQuery."""
        yield from self._pass_on()
        expected = self._session.expected
        if all_of_it and expected and not _ends(expected[-1]) and not self._session.skipping:
            yield Insert(FLUSH)  # the server may be keeping what it has to say
        while expected if all_of_it else any(map(_ends, expected)):
            if self._raw:
                return
            yield _WAIT

    def _inquire(self, closing: bytes) -> Iterator[Step]:
        """Put the question, and wait for the answer; the `Ask` is in `self._answer` then."""
        yield from self._pass_on()
        session, question = self._session, Ask()
        self._answer = question
        if session.skipping:
            question.assigned = False
            return
        self._asked += 1
        yield Insert(ask(self._asked) + closing)
        for of in _ASKED:
            session.expect(of, drop=True, ask=question)
        if closing == SYNC:
            session.expect("sync", drop=True)
        while question.assigned is None or (closing == SYNC and session.expected):
            if self._raw:
                return
            yield _WAIT

    def _refuse(self, effect: Effect) -> Iterator[Step]:
        session = self._session
        text = error(self._refusal, "refused by the wire between client and server")
        instead = text + message(b"Z", b"I")
        if effect.data:
            yield Drop(effect.data)
        if self._holds == "query":
            yield Insert(message(b"Q", b"ROLLBACK\0"))
            session.expect("query", drop=True, number=effect.number, instead=instead, refused=True)
        else:
            yield Insert(run(b"ROLLBACK") + SYNC)
            for of in _RUN:
                session.expect(of, drop=True)
            session.expect("sync", drop=True, number=effect.number, instead=instead, refused=True)

    # -- simple protocol -----------------------------------------------------------------------------------------

    def _query(self, whole: bytes, body: bytes) -> Iterator[Step]:
        yield from self._settled(all_of_it=True)
        if self._raw:
            self._out += whole
            return
        session, text = self._session, body.rstrip(b"\0")
        if session.status == b"I":
            self._begin_unit()
        self._transaction.remember(text)
        parts = statements(text)
        kinds = {part.kind for part in parts or (_UNSURE,)}
        single = parts[0] if parts is not None and len(parts) == 1 else None
        idle, commits = session.status == b"I", bool(kinds & _COMMITS.keys())
        if single and commits and session.status == b"T":
            yield from self._commit_block(whole, single)
        elif (idle and self._plain(parts)) or (single and not idle) or (parts and not idle and not commits):
            self._pass_query(whole, parts)
        elif parts is None or session.replicating or kinds & {*_AT_ONCE, "copy in", "copy out"}:
            site = _AT_ONCE[single.kind] if single and single.kind in _AT_ONCE else "postgres.write"
            yield from self._say(site, "on arrival", whole, lambda number: self._expect_query(parts, number))
        else:
            yield from self._convert(whole, parts)

    def _plain(self, parts: tuple[Statement, ...] | None) -> bool:
        """Whether a text can go on as it is, outside a block: nothing in it writes, or it is a COPY, told later."""
        if parts is None:
            return False
        if len(parts) == 1 and parts[0].kind in {"copy in", "copy out"}:
            return True
        return all(part.kind in _INERT or _reads(part) for part in parts)

    def _pass_query(self, whole: bytes, parts: tuple[Statement, ...] | None) -> None:
        self._out += whole
        self._expect_query(parts, 0)

    def _expect_query(self, parts: tuple[Statement, ...] | None, number: int) -> Expected:
        return self._session.expect("query", statements=parts, transaction=self._transaction, number=number)

    def _commit_block(self, whole: bytes, statement: Statement) -> Iterator[Step]:
        yield from self._inquire(SYNC)
        transaction = self._transaction
        if transaction.wrote(self._answer) and not self._raw:
            site = _COMMITS[statement.kind]
            yield from self._say(site, "query", whole, lambda number: self._expect_query((statement,), number))
        else:
            self._pass_query(whole, (statement,))
        self._begin_unit()

    def _convert(self, whole: bytes, parts: tuple[Statement, ...]) -> Iterator[Step]:
        """Send a text as its statements, one by one, with the commits apart."""
        session = self._session
        session.keeping = True
        yield Drop(whole)
        for part in parts:
            effect = None
            if part.kind in _COMMITS and session.predicted != b"I":
                yield from self._inquire(FLUSH)
                if self._transaction.wrote(self._answer) and not session.skipping:
                    effect = self._effect(_COMMITS[part.kind], "part of a text", b"")
                    yield effect
                    self._went_on()
            yield Insert(run(part.text))
            session.expect("parse", drop=True)
            session.expect("bind", drop=True)
            session.expect("describe", converted=True)
            more: dict[str, Any] = {"number": effect.number} if effect else {}
            session.expect("execute", statements=(part,), transaction=self._transaction, converted=True, **more)
            session.predict(part)
            if part.kind in {*_COMMITS, "rollback"}:
                self._begin_unit()
                session.keeping = True
            self._executed = self._executed or not (part.kind in _INERT or _reads(part))
            if effect:
                yield Delivered(effect.number)
        yield from self._sync_unit(b"", converted=True)

    # -- extended protocol ---------------------------------------------------------------------------------------

    def _other(self, whole: bytes, body: bytes) -> Iterator[Step]:
        if whole[:1] == b"d":
            yield from self._standby_status(whole, body)
        elif whole[:1] not in {b"p", b"H", b"f", b"X"}:
            raise NotUnderstood(f"a request of the kind {whole[:1]!r}")
        else:
            self._out += whole

    def _parse(self, whole: bytes, body: bytes) -> Iterator[Step]:
        [name, text], _ = _strings(body, 2)
        parts = statements(text)
        self._prepared[name] = parts[0] if parts and len(parts) == 1 else Statement(text, "write")
        self._out += whole
        self._session.expect("parse")
        yield from ()

    def _bind(self, whole: bytes, body: bytes) -> Iterator[Step]:
        [portal, name], at = _strings(body, 2)
        statement = self._portals[portal] = self._prepared.get(name, _UNSURE)
        if not self._session.expected and self._session.status == b"I":
            self._begin_unit()
        self._transaction.remember(statement.text, *parameters(body, at))
        self._out += whole
        self._session.expect("bind")
        yield from ()

    def _describe(self, whole: bytes, _: bytes) -> Iterator[Step]:
        self._out += whole
        self._session.expect("describe")
        yield from ()

    def _close(self, whole: bytes, _: bytes) -> Iterator[Step]:
        self._out += whole
        self._session.expect("close")
        yield from ()

    def _execute(self, whole: bytes, body: bytes) -> Iterator[Step]:
        session = self._session
        statement = self._portals.get(body.partition(b"\0")[0], _UNSURE)

        def expect(number: int = 0) -> Expected:
            return session.expect("execute", statements=(statement,), transaction=self._transaction, number=number)

        if statement.kind in _COMMITS:
            yield from self._commit_portal(whole, statement, expect)
            session.predict(statement)
            return
        if statement.kind in _AT_ONCE:
            yield from self._settled(all_of_it=False)
            if session.status == b"I" and session.predicted == b"I" and not session.skipping:
                yield from self._say(_AT_ONCE[statement.kind], "on arrival", whole, expect)
                return
        self._executed = self._executed or not (statement.kind in _INERT or _reads(statement))
        self._out += whole
        expect()
        session.predict(statement)
        if statement.kind == "rollback":
            self._begin_unit()

    def _commit_portal(self, whole: bytes, statement: Statement, expect: Callable[[int], Expected]) -> Iterator[Step]:
        session = self._session
        yield from self._settled(all_of_it=False)
        if session.predicted != b"I" and session.status != b"E":
            yield from self._inquire(FLUSH)
            if self._transaction.wrote(self._answer) and not session.skipping and not self._raw:
                yield from self._say(_COMMITS[statement.kind], "part of a pipeline", whole, expect)
                self._begin_unit()
                return
        self._out += whole
        expect(0)
        self._begin_unit()

    def _sync(self, whole: bytes, _: bytes) -> Iterator[Step]:
        yield from self._sync_unit(whole, converted=False)

    def _sync_unit(self, whole: bytes, *, converted: bool) -> Iterator[Step]:
        """End a batch of the extended protocol: with an effect, if it commits one."""
        session = self._session
        effect = None
        if self._executed and (session.predicted == b"I" or session.unsure) and not session.skipping:
            yield from self._pass_on()
            session.keeping = True
            yield from self._inquire(FLUSH)
            wrote = self._transaction.wrote(self._answer)
            if session.status == b"I" and wrote and not session.skipping and not self._raw:
                effect = self._effect("postgres.write", "sync", whole)
                yield effect
                if not self._went_on():
                    self._begin_unit()
                    yield Delivered(effect.number)
                    return
        session.expect("sync", converted=converted, number=effect.number if effect else 0)
        if converted:
            yield Insert(SYNC)
        elif effect is None:
            self._out += whole
        if effect is not None:
            yield Delivered(effect.number)
        if session.predicted == b"I":
            self._begin_unit()

    # -- the rest ------------------------------------------------------------------------------------------------

    def _copy_done(self, whole: bytes, _: bytes) -> Iterator[Step]:
        session = self._session
        head = session.expected[-1] if session.expected else None
        yield from self._pass_on()
        while head is not None and head in session.expected and not (head.error or session.copying or self._raw):
            yield _WAIT  # some clients do not wait until they are asked for data
        idle = session.copying and session.status == b"I"
        if head is not None and head.of == "query" and idle and self._copied:
            effect = self._effect("postgres.write", _END_OF_COPY, whole)
            head.number = effect.number
            yield effect
            self._went_on()
            yield Delivered(effect.number)
        else:
            self._out += whole

    def _function_call(self, whole: bytes, body: bytes) -> Iterator[Step]:
        yield from self._settled(all_of_it=True)
        self._transaction.remember(body)
        if self._session.status == b"I" and not self._raw:
            yield from self._say("postgres.call", "on arrival", whole, lambda number: self._expect_query((), number))
        else:
            self._transaction.done(None, b"")
            self._pass_query(whole, ())

    def _standby_status(self, whole: bytes, body: bytes) -> Iterator[Step]:
        flushed = struct.unpack_from("!Q", body, 9)[0] if body[:1] == b"r" and len(body) > 16 else 0  # noqa: PLR2004
        if flushed <= self._flushed_lsn:
            self._out += whole
            return
        self._flushed_lsn = flushed
        self._begin_unit()
        self._transaction.remember(b"%X/%X" % (flushed >> 32, flushed & 0xFFFFFFFF))
        yield from self._pass_on()
        effect = self._effect("postgres.confirm", _STANDBY, whole, answered=False)
        yield effect
        self._went_on()
        yield Delivered(effect.number)


def _ends(entry: Expected) -> bool:
    return entry.of in {"sync", "query", "startup"}


def _strings(body: bytes, count: int) -> tuple[list[bytes], int]:
    try:
        return strings(body, count)
    except ValueError:
        raise NotUnderstood("a request that is not well formed") from None
