"""The Postgres protocol: what commits something, decided by the server's word before it is committed.

Problem: only the server knows whether a commit changes anything, and it says so when it is too late.

Things that don't work:

- Regular expressions for SQL: DO, SELECT f(), WITH … INSERT, EXECUTE, comments, pipelined COMMITs, prepared names.
- The transaction's id alone: nextval, a row lock, a savepoint that was rolled back have one too.
- The tags alone: an UPDATE of no row, a SELECT that calls a function.
- A second session that looks at the worker's: one more connection and its rights, 120 µs, and nothing about a statement
  that the server executes and commits in one go.
- A simple Query of several statements sent as one Parse each: LOCK, DECLARE, SET LOCAL are errors there, and a text
  with a mistake at its end would have been carried out up to there.

Solution: the wire asks in the worker's own session, inside the transaction, in sequence with everything else, whether
that transaction has an id (`Ask`; the answer never reaches the client), and adds what the tags and rows said
(`Transaction`). For that, the commit has to be a request of its own:

====================================== ==========================================================================
COMMIT, END, PREPARE TRANSACTION       the question goes first, then the COMMIT: site ``postgres.commit``
a Sync after statements in no block    Flush and the question go first, then the Sync: ``postgres.write``
a simple Query in no block             is sent so that its commit is apart (`postgres_texts`), then as above. The client
                                       sees the replies of a simple Query
COPY FROM STDIN by a simple Query      its CopyDone, if it sent any data: ``postgres.write``
what commits within its execution      CALL, VACUUM, CREATE DATABASE, COMMIT PREPARED, a function call, a text that the
                                       lexer is not sure of: an effect on arrival, together with its Sync
standby status update                  if it confirms a transaction that was sent: ``postgres.confirm``, unanswered
====================================== ==========================================================================

Requests for encryption are answered no, so that clients who merely prefer it go on in plain.

Known limits: a view over a function that writes is taken for a read where there is no FROM to be seen. COMMIT in a
pipeline cannot be refused. A statement fetched through a cursor is taken for a read. A text that commits twice, or goes
on after its COMMIT, is one effect, when it arrives. A function that only takes from a sequence has now and then an id,
and is an effect then. ``current_query()`` in a text that ends with COMMIT does not show that. A simple Query in a batch
of the extended protocol is taken for its end, but new servers commit at the Sync all the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from chaos.wire.postgres_messages import (
    CANCEL,
    COPY_FAIL,
    FLUSH,
    GSSENC,
    MAJOR,
    SSL,
    SYNC,
    TERMINATE,
    parameters,
    strings,
)
from chaos.wire.postgres_queries import Queries
from chaos.wire.postgres_session import Expected, NotUnderstood
from chaos.wire.postgres_sql import Statement, statements
from chaos.wire.postgres_texts import AT_ONCE, COMMITS
from chaos.wire.postgres_transaction import LIMIT, UNSURE, may_write
from chaos.wire.postgres_units import Over
from chaos.wire.steps import Delivered, Drop, Pass, Raw, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.steps import Step

LONGEST: Final = 256 << 20
"""A message that is longer is not read."""

_TLS: Final = b"\x16\x03"
_COPY: Final = ord("d")
_START: Final = 8  # bytes of a length and a code
_HEAD: Final = 5  # bytes of a kind and a length
_NO: Final = frozenset((b"", b"0", b"f", b"false", b"n", b"no", b"of", b"off"))


class Postgres(Queries):
    """One connection; a `chaos.wire.steps.WireProtocol`."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = False  # what commits at once waits for its Sync
        self._impatient = False
        self._read: Callable[[], Iterator[Step]] = self._start_up
        self._in = bytearray()
        self._skip = 0  # bytes of COPY data that pass, still to come
        self._started = False
        self._portals: dict[bytes, Statement] = {}
        self._copy: Expected | None = None  # a COPY FROM STDIN by the extended protocol, until the client ends it
        self._kinds: dict[int, Callable[[bytes], Iterator[Step]]] = {
            ord("Q"): self._query,
            ord("P"): self._parse,
            ord("B"): self._bind,
            ord("E"): self._execute,
            ord("D"): self._describe,
            ord("C"): self._close,
            ord("S"): self._sync,
            ord("F"): self._function_call,
            ord("c"): self._end_copy,
            ord("f"): self._end_copy,
            ord("d"): self._stream,
            ord("p"): self._other,
            ord("H"): self._other,
            ord("X"): self._other,
        }

    # -- the contract --------------------------------------------------------------------------------------------

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        self._in += data
        self._impatient = self.kept and not data
        yield from self._go_on()
        if not data:
            self._out += self._in
            self._in.clear()
            yield from self._pass_on()

    def overdue(self) -> Iterator[Step]:
        """The client has not ended what commits at once with a Sync."""
        self._impatient = self.kept
        yield from self._go_on()

    def _go_on(self) -> Iterator[Step]:
        self.kept = False
        if not self._raw:
            try:
                yield from self._read()
            except NotUnderstood as why:
                self._raw = True
                yield Raw(str(why))
            except Over:
                pass
        if self._raw:
            self._out += self._whole + self._in
            self._whole = b""
            self._in.clear()
        yield from self._pass_on()

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        if self._raw or not data:
            if not self._raw:
                yield from self._replies.end()
            self._raw = True
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

    @property
    def outstanding(self) -> int:
        """Replies that are expected; an effect that was said is one of them."""
        apart = {"", "the end of a COPY", "a confirmation"}  # the COPY itself is expected
        return len(self._session.expected) - self._session.streaming + (self._holds not in apart)

    @property
    def cancel_request(self) -> bytes:
        """What cancels, on a connection of its own, whatever this session does."""
        return self._session.cancel_request

    def farewell(self) -> bytes:
        """Terminate; in the middle of a COPY its end first."""
        if not self._started:
            return b""
        return (COPY_FAIL if self._session.copying else b"") + TERMINATE

    # -- reading requests ----------------------------------------------------------------------------------------

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
            settings = packet[_START:].split(b"\0")
            self._walsender = dict(zip(settings[::2], settings[1::2], strict=False)).get(b"replication", b"") not in _NO
            self._started = True
            self._read = self._messages
            yield from self._messages()
            return

    def _messages(self) -> Iterator[Step]:
        while not (self._raw or self.kept):
            if self._skip:
                part = self._take(min(self._skip, len(self._in)))
                self._skip -= len(part)
                self._transaction.remember_copied(part)
                self._out += part
            if len(self._in) < _HEAD:
                return
            kind = self._in[0]
            [length] = struct.unpack_from("!I", self._in, 1)
            if not 4 <= length <= LONGEST or kind not in self._kinds:  # noqa: PLR2004 - the length counts itself
                raise NotUnderstood(f"not Postgres: a request beginning {bytes(self._in[:8])!r}")
            if kind == _COPY and not self._session.streaming:
                self._out += self._take(_HEAD)
                self._skip = length - 4
                self._copied = self._copied or self._skip > 0
                continue
            if len(self._in) <= length:
                return
            self._whole = self._take(1 + length)
            yield from self._kinds[kind](self._whole[_HEAD:])

    def _take(self, length: int) -> bytes:
        part = bytes(self._in[:length])
        del self._in[:length]
        return part

    def _start(self) -> None:
        """Something goes out that may begin a transaction."""
        if not self._open:
            self._open = True
            if self._session.predicted == b"I":
                self._begin_unit()

    # -- extended protocol ---------------------------------------------------------------------------------------

    def _other(self, _: bytes) -> Iterator[Step]:
        self._pass()
        yield from ()

    def _parse(self, body: bytes) -> Iterator[Step]:
        self._start()
        [name, text], _ = _strings(body, 2)
        parts = statements(text)
        self._session.prepare(name, parts[0] if parts and len(parts) == 1 else UNSURE)
        self._pass()
        yield from ()

    def _bind(self, body: bytes) -> Iterator[Step]:
        self._start()
        [portal, name], at = _strings(body, 2)
        statement = self._portals[portal] = self._session.prepared.get(name, UNSURE)
        self._transaction.remember(statement.text, *parameters(body, at))
        self._session.expect(Expected("bind"))
        self._pass()
        yield from ()

    def _describe(self, _: bytes) -> Iterator[Step]:
        self._start()
        self._session.expect(Expected("describe"))
        self._pass()
        yield from ()

    def _close(self, body: bytes) -> Iterator[Step]:
        self._start()
        of = self._session.prepared if body[:1] == b"S" else self._portals
        of.pop(body[1:].rstrip(b"\0"), None)
        self._session.expect(Expected("close"))
        self._pass()
        yield from ()

    def _execute(self, body: bytes) -> Iterator[Step]:
        self._start()
        session = self._session
        statement = self._portals.get(body.partition(b"\0")[0], UNSURE)

        def expect(number: int = 0) -> Expected:
            made = Expected("execute", statements=(statement,), number=number)
            session.expect(made)
            session.predict(statement)
            return made

        if statement.kind in COMMITS:
            yield from self._commit_portal(statement, expect)
        elif statement.kind in AT_ONCE and not session.skipping:
            yield from self._at_once(statement, expect)
        else:
            self._executed = self._executed or may_write(statement)
            made = expect()
            self._copy = made if statement.kind == "copy in" else self._copy
            self._pass()
            if statement.kind == "rollback":
                self._begin_unit()

    def _commit_portal(self, statement: Statement, expect: Callable[[int], Expected]) -> Iterator[Step]:
        session = self._session
        yield from self._settled(all_of_it=False)
        if session.predicted != b"I" and session.status != b"E":
            yield from self._inquire(FLUSH)
            if self._has_written():
                evidence = self._answer.evidence
                yield from self._effect(COMMITS[statement.kind], "part of a pipeline", self._whole, evidence=evidence)
                number = self._number
                self._went_on()
                expect(number)
                yield from self._insert(FLUSH)  # or its reply may wait for what is behind it
                yield Delivered(number)
                self._begin_unit()
                return
        expect(0)
        self._pass()
        self._begin_unit()

    def _at_once(self, statement: Statement, expect: Callable[[int], Expected]) -> Iterator[Step]:
        """An effect together with the Sync behind it, which commits the rest of it; it waits for that a little."""
        session = self._session
        yield from self._settled(all_of_it=True)
        if session.status != b"I" or session.predicted != b"I" or session.skipping:
            self._executed = True
            expect(0)
            self._pass()
            return
        site, whole = AT_ONCE[statement.kind], self._whole
        if self._in.startswith(SYNC):

            def expect_both(number: int) -> None:
                expect(0)
                session.expect(Expected("sync", number=number))

            self._whole += self._take(len(SYNC))
            self._open = False
            yield from self._say(site, "on arrival", self._whole, expect_both)
        elif SYNC.startswith(self._in) and not self._impatient:
            self._in[:0] = whole
            self._whole = b""
            self.kept = True
        else:
            self._impatient = False
            yield from self._say(site, "on arrival", whole, expect)

    def _sync(self, _: bytes) -> Iterator[Step]:
        session, copy = self._session, self._copy
        while copy is not None and copy in session.expected and not session.copying:
            yield from self._wait()
        if copy is not None and copy in session.expected:
            self._pass()  # the server ignores it
            return
        self._copy = None
        yield from self._sync_unit(b"")

    # -- the rest ------------------------------------------------------------------------------------------------

    def _end_copy(self, _: bytes) -> Iterator[Step]:
        """CopyDone or CopyFail."""
        session = self._session
        head, self._copy = self._copy or (session.expected[-1] if session.expected else None), None
        if head is None or head.of not in {"query", "execute"} or session.streaming:
            self._pass()
            return
        while head in session.expected and not (head.error or session.copying or session.streaming):
            yield from self._wait()  # some clients do not wait until they are asked for data
        apart = session.copying and session.status == b"I" and head.of == "query" and not head.number
        session.copying = False
        if apart and self._copied and self._whole.startswith(b"c"):
            yield from self._effect("postgres.write", "the end of a COPY", self._whole)
            head.number = self._number
            self._went_on()
            yield Delivered(head.number)
        else:
            self._pass()

    def _function_call(self, body: bytes) -> Iterator[Step]:
        yield from self._settled(all_of_it=True)
        session = self._session
        if session.copying or session.skipping:
            self._pass()
            return
        self._start()
        self._open = False
        self._transaction.remember(body)
        if session.status == b"I":
            yield from self._say(
                "postgres.call", "on arrival", self._whole, lambda number: self._expect_query((), number)
            )
        else:
            self._transaction.done(UNSURE, b"")
            self._expect_query((), 0)
            self._pass()

    def _stream(self, body: bytes) -> Iterator[Step]:
        """What is sent to a replication stream; a standby's status update may confirm something."""
        place = int.from_bytes(body[9:17]) if body[:1] == b"r" else 0
        if not self._session.confirms(place):
            self._pass()
            return
        self._begin_unit()
        self._transaction.remember(b"%X/%X" % (place >> 32, place & 0xFFFFFFFF))
        yield from self._effect("postgres.confirm", "a confirmation", self._whole, answered=False)
        self._went_on()
        yield Delivered(self._number)


def _strings(body: bytes, count: int) -> tuple[list[bytes], int]:
    try:
        return strings(body, count)
    except ValueError:
        raise NotUnderstood("a request that is not well formed") from None
