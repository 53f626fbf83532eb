"""What the wire does where a Postgres session commits: it waits, asks, says the effect, and may refuse it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from chaos.wire.postgres_messages import FLUSH, SYNC, ask, error, message, query, run
from chaos.wire.postgres_replies import Replies
from chaos.wire.postgres_session import Expected, Session
from chaos.wire.postgres_transaction import END, Ask, Transaction
from chaos.wire.steps import Delivered, Drop, Effect, Insert, Pass, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.postgres_session import ReplyOf
    from chaos.wire.steps import Step

Holds: TypeAlias = Literal[
    "", "query", "sync", "on arrival", "part of a pipeline", "the end of a COPY", "a confirmation"
]
"""What kind of request the effect is that was said last; empty once it went on."""

_WAIT: Final = Wait()
_ASKED: Final[tuple[ReplyOf, ...]] = ("parse", "bind", "execute", "close")
_RUN: Final[tuple[ReplyOf, ...]] = ("parse", "bind", "describe", "execute")
_SQLSTATE: Final = 5


class Over(Exception):
    """Nothing is understood any more, or the server is gone: what is left passes."""


class Units:
    """One connection's units, each a transaction or a part of one; the requests are read by `Postgres`."""

    def __init__(self) -> None:
        self.not_understood: Counter[str] = Counter()
        self.stirs = 0
        self._session = Session()
        self._replies = Replies(self._session)
        self._raw = False
        self._whole = b""  # the message that is being read, until it has been said
        self._out = bytearray()  # read, passing, not said
        self._asked = self._number = 0
        self._answer = Ask()
        self._transaction = self._session.transaction
        self._executed = False  # anything that may have written, since the last Sync
        self._copied = False
        self._open = False  # a batch of the extended protocol has begun, and no Sync ended it
        self._holds: Holds = ""
        self._refusal = b""
        self._walsender = False

    def _begin_unit(self) -> None:
        """A transaction may begin here."""
        self._transaction = self._session.transaction = Transaction()
        self._executed = self._copied = False

    # -- passing -------------------------------------------------------------------------------------------------

    def _pass(self) -> None:
        """The message is no effect."""
        self.stirs += 1
        self._out += self._whole
        self._whole = b""

    def _pass_on(self) -> Iterator[Step]:
        if self._out:
            data = bytes(self._out)
            self._out.clear()
            yield Pass(data)

    def _drop(self) -> Iterator[Step]:
        """The message is replaced."""
        yield from self._pass_on()
        whole, self._whole = self._whole, b""
        yield Drop(whole)

    def _insert(self, data: bytes, *expected: Expected) -> Iterator[Step]:
        """Send something of the wire's own, to which this is said."""
        yield from self._pass_on()
        if self._raw:
            raise Over
        yield Insert(data)
        for one in expected:
            self._session.expect(one)

    def _wait(self) -> Iterator[Step]:
        yield from self._pass_on()
        if self._raw:
            raise Over
        yield _WAIT
        if self._raw:
            raise Over

    def _settled(self, *, all_of_it: bool) -> Iterator[Step]:
        """Wait until what was sent is answered: everything, or everything that ends with ReadyForQuery."""
        session = self._session
        expected = session.expected
        if all_of_it and expected and not (expected[-1].ends or session.copying):
            yield from self._insert(FLUSH)  # the server may be keeping what it has to say
        while not session.copying and (expected if all_of_it else any(one.ends for one in expected)):
            yield from self._wait()

    # -- asking --------------------------------------------------------------------------------------------------

    def _inquire(self, closing: bytes) -> Iterator[Step]:
        """Put the question, and wait for the answer; whether to commit is an effect is `_has_written` then."""
        session, question = self._session, Ask(alone=closing == SYNC)
        self._answer = question
        if session.skipping:
            question.assigned = False
            return
        if self._walsender:  # it knows nothing but simple Queries
            yield from self._settled(all_of_it=True)
            question.assigned = True
            return
        self._asked += 1
        ends = [Expected("sync", drop=True)] if closing == SYNC else []
        asked = [Expected(of, drop=True, ask=question) for of in _ASKED]
        yield from self._insert(ask(self._asked) + closing, *asked, *ends)
        while question.assigned is None or (ends and ends[0] in session.expected):
            yield from self._wait()

    def _has_written(self) -> bool:
        return self._transaction.wrote(self._answer) and not (self._session.skipping or self._raw)

    # -- effects -------------------------------------------------------------------------------------------------

    def _effect(
        self, site: str, holds: Holds, data: bytes, *, answered: bool = True, evidence: tuple[str, ...] = ()
    ) -> Iterator[Step]:
        """Say one. Whether it went on, and was not refused, is `_went_on`."""
        yield from self._pass_on()
        self._number += 1
        self._holds = holds
        self._session.keeping = self._session.keeping or answered
        self._whole = b""
        yield Effect(self._number, site, self._transaction.whole, data, answered=answered, evidence=evidence)

    def _went_on(self) -> bool:
        self._holds = ""
        refused, self._refusal = self._refusal, b""
        return not refused

    def _say(self, site: str, holds: Holds, data: bytes, expect: Callable[[int], object]) -> Iterator[Step]:
        """An effect whose reply ends with what `expect` makes of its number."""
        yield from self._effect(site, holds, data)
        number = self._number
        if self._went_on():
            expect(number)
        yield Delivered(number)

    def refuse(self, effect: Effect, sqlstate: str) -> Iterator[Step]:
        """Roll back, and tell the client `sqlstate` in place of the reply."""
        if len(sqlstate) != _SQLSTATE:
            raise ValueError(f"{sqlstate} is no SQLSTATE; to a commit can be said, for example, 40001 or 40P01")
        if self._holds not in {"query", "sync"}:
            what = self._holds or "it is"
            raise ValueError(f"{effect.site} as {what} cannot be refused, only a COMMIT or a Sync can")
        self._refusal = error(sqlstate, "refused by the wire between client and server")
        return self._refuse(effect)

    def _refuse(self, effect: Effect) -> Iterator[Step]:
        if effect.data:
            yield Drop(effect.data)
        yield from self._roll_back(self._refusal, effect.number, of="query" if self._holds == "query" else "sync")

    def _roll_back(self, told: bytes, number: int = 0, of: ReplyOf = "query") -> Iterator[Step]:
        """Roll back in place of a commit; the client is told this error."""
        self._session.predict(END)
        last = Expected(of, drop=True, number=number, instead=told + message(b"Z", b"I"), refused=True)
        if of == "query":
            yield from self._insert(query(b"ROLLBACK"), last)
        else:
            parts = [Expected(part, drop=True) for part in _RUN]
            yield from self._insert(run(b"ROLLBACK") + SYNC, *parts, last)
