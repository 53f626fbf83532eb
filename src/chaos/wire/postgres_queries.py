"""What a simple Query of Postgres, and a Sync, are to the wire: a unit, whose commit is sent apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos.wire.postgres_messages import FLUSH, FORGET, SYNC, message, query, run
from chaos.wire.postgres_session import Expected
from chaos.wire.postgres_sql import statements
from chaos.wire.postgres_texts import AT_ONCE, COMMITS, before_commit, way
from chaos.wire.postgres_transaction import END
from chaos.wire.postgres_units import Units
from chaos.wire.steps import Delivered

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.wire.postgres_sql import Statement
    from chaos.wire.steps import Step


class Queries(Units):
    """One connection's."""

    def _query(self, body: bytes) -> Iterator[Step]:
        yield from self._settled(all_of_it=True)
        session, text = self._session, body.rstrip(b"\0")
        if session.copying or session.skipping:  # the server takes it for an error, or ignores it
            self._pass()
            return
        if session.status == b"I" and not self._open:
            self._begin_unit()
        self._transaction.remember(text)
        parts = statements(text)
        how = way(parts, text, session.status)
        if session.status == b"I" and self._open and self._executed:
            how = "arrival"  # it commits what was sent without a Sync, too
        elif self._walsender and how in {"one", "block"}:
            how = "arrival"
        self._open = self._executed = False
        if how == "pass":
            self._expect_query(parts, 0)
            self._pass()
        elif how == "commit":
            yield from self._commit_text(parts or (), text)
        elif how == "one":
            yield from self._one(parts or (), text)
        elif how == "block":
            yield from self._block(parts or (), text)
        else:
            kind = parts[0].kind if parts and len(parts) == 1 else "write"
            site = AT_ONCE.get(kind, "postgres.write")
            yield from self._say(site, "on arrival", self._whole, lambda number: self._expect_query(parts, number))

    def _expect_query(self, parts: tuple[Statement, ...] | None, number: int) -> None:
        self._session.predict(*(parts or ()))
        expected = Expected("query", statements=parts, number=number)
        self._session.expect(expected)

    def _commit_text(self, parts: tuple[Statement, ...], text: bytes) -> Iterator[Step]:
        """What is before the COMMIT, the question, the COMMIT."""
        *before, commit = parts
        whole, sent = self._whole, b""
        if before:
            yield from self._drop()
            whole, sent = b"", query(commit.text)
            first = Expected("query", hides=b"Z", relents=True, statements=tuple(before))
            yield from self._insert(query(before_commit(parts, text) or b""), first)
            yield from self._settled(all_of_it=True)
            if first.error:
                return
        yield from self._inquire(SYNC)
        if self._answer.error:
            if whole:
                yield from self._drop()
            yield from self._roll_back(message(b"E", self._answer.error))
            return
        if self._has_written():
            yield from self._effect(COMMITS[commit.kind], "query", whole, evidence=self._answer.evidence)
            number = self._number
            if not self._went_on():
                yield Delivered(number)
                return
        else:
            number = 0
            self._pass()
        if sent:
            yield from self._insert(sent)
        self._expect_query((commit,), number)
        if number:
            yield Delivered(number)

    def _one(self, parts: tuple[Statement, ...], text: bytes) -> Iterator[Step]:
        """One statement as a batch of the extended protocol."""
        self._session.keeping = True
        yield from self._drop()
        yield from self._insert(
            run(text) + FORGET,
            Expected("parse", hides=b"1"),
            Expected("bind", hides=b"2"),
            Expected("describe", hides=b"n"),
            Expected("execute", holds=True, statements=parts),
            Expected("close", hides=b"3"),
        )
        self._executed = True
        yield from self._sync_unit(SYNC)

    def _block(self, parts: tuple[Statement, ...], text: bytes) -> Iterator[Step]:
        """Several statements as what the server makes of them: a block."""
        session = self._session
        session.keeping = True
        yield from self._drop()
        inner = Expected("query", hides=b"Z", holds=True, statements=parts)
        yield from self._insert(query(b"BEGIN"), Expected("query", drop=True))
        yield from self._insert(query(text), inner)
        yield from self._settled(all_of_it=True)
        if inner.error:
            session.predict(END)
            yield from self._insert(query(b"ROLLBACK"), Expected("query", hides=b"C"))
            return
        yield from self._inquire(SYNC)
        if self._answer.error:
            yield from self._roll_back(message(b"E", self._answer.error))
            return
        end, number = Expected("query", hides=b"C"), 0
        if self._has_written():
            yield from self._effect("postgres.write", "query", b"", evidence=self._answer.evidence)
            number = end.number = self._number
            if not self._went_on():
                yield Delivered(number)
                return
        session.predict(END)
        yield from self._insert(query(b"COMMIT"), end)
        if number:
            yield Delivered(number)

    def _sync_unit(self, inserted: bytes) -> Iterator[Step]:
        """End a batch of the extended protocol: with an effect, if it commits one."""
        session, number = self._session, 0
        self._open = False
        if self._executed and (session.predicted == b"I" or session.unsure) and not session.skipping:
            session.keeping = True
            yield from self._inquire(FLUSH)
            if session.status == b"I" and self._has_written():
                yield from self._effect("postgres.write", "sync", self._whole, evidence=self._answer.evidence)
                number = self._number
                if not self._went_on():
                    yield Delivered(number)
                    return
        sync = Expected("sync", number=number)
        if inserted:
            yield from self._insert(inserted, sync)
        else:
            session.expect(sync)
            self._pass()
        if number:
            yield Delivered(number)
