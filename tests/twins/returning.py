"""Twins of what parks, buries and sends back: each takes one step too early, and is found where it dies after it.

overtaking            lets an order's later events pass while the first is parked: found without a fault
mails_twice           no inbox in the notification group and its retry worker: found where letters are sent back twice
drops_when_full       goes on when parking is full: found without a fault, where enough cannot be handled
offset_before_burial  commits the offset of what nobody can read before it is a dead letter: found where the member dies
                      behind that (`kafka.offset_commit`: crash-after up to `kafka.produce`: crash-before)
mark_before_burial    the retry worker that gives an order up before its event is a dead letter (`postgres.commit`:
                      crash-after up to `kafka.produce`: crash-before)
note_before_sending   the replay that notes a letter as sent before Kafka has it (`postgres.write`: crash-after up to
                      `kafka.produce`: crash-before)
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from pipeline.process import member, retry
from pipeline.quarantine import replay
from pipeline.quarantine.dead import DeadLetters
from pipeline.quarantine.parking import Full
from tests.twins import mendable
from tests.twins.group_no_inbox import Forgetful, NoInbox

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confluent_kafka import Producer

    from pipeline.process.member import Delivery, Handler
    from pipeline.quarantine.letters import Failure, Letter
    from pipeline.runtime import Stop
    from pipeline.settings import GroupSettings, RetrySettings


class Passing(member.Work):
    """A retry topic alone: no table, and nothing of what it is for."""

    def together(self, batch: Sequence[Delivery]) -> None:
        """BUG: should park what comes behind an event that is parked."""
        with self.database.transaction() as connection:
            self.once(connection, [one.event for one in batch if not one.back])
        super().together([one for one in batch if one.back])


class Overtaking(member.Member):
    """Has every order flow."""

    work = Passing


class DropsWhenFull(member.Member):
    """Is never held up."""

    def _failed(self, one: Delivery, why: Exception) -> None:
        """BUG: should wait until there is room."""
        with contextlib.suppress(Full):
            super()._failed(one, why)


class RetryNoInbox(retry.Retry):
    """Trusts that nobody presses twice."""

    work = Forgetful


class Later(DeadLetters):
    """Buries when it is told to."""

    letters: tuple[tuple[Letter, Failure], ...] = ()

    def bury(self, letters: Sequence[tuple[Letter, Failure]]) -> None:
        """BUG: should return when Kafka has confirmed them."""
        self.letters += tuple(letters)

    def now(self) -> None:
        """Bury them."""
        letters, self.letters = self.letters, ()
        super().bury(letters)


class OffsetBeforeBurial(member.Member):
    """Tidies up at the end."""

    def __init__(self, settings: GroupSettings, handler: Handler, stop: Stop) -> None:
        super().__init__(settings, handler, stop)
        self._dead: Later = Later(settings, handler.name)

    def process(self, letters: Sequence[Letter], batch: Sequence[Delivery]) -> None:
        """BUG: should commit offsets when nothing is left to be done."""
        super().process(letters, batch)
        self._dead.now()


class MarkBeforeBurial(retry.Retry):
    """Sends what it has decided when that is durable, as one does with mails."""

    def __init__(self, settings: RetrySettings, handler: Handler) -> None:
        super().__init__(settings, handler)
        self._dead: Later = Later(settings, handler.name)

    def carry(self) -> bool:
        """BUG: should mark an order when its event is a dead letter."""
        found = super().carry()
        self._dead.now()
        return found


class NoteBeforeSending(replay.Replay):
    """Wants to be sure that nothing is sent twice."""

    def put(self, producer: Producer, one: replay.Dead) -> None:
        """BUG: should note what Kafka has confirmed."""
        with psycopg.connect(self._settings.database_url, autocommit=True) as connection:
            connection.execute(replay.NOTE, [self._group, one.origin, one.replays + 1, "sent"])
        super().put(producer, one)


def overtaking() -> None:
    """Run it in the place of `tests.twins.mendable:main`."""
    member.run(mendable.Mendable, Overtaking)


def drops_when_full() -> None:
    """Run it in the place of `tests.twins.mendable:main`."""
    member.run(mendable.Mendable, DropsWhenFull)


def mails_twice() -> None:
    """Run it in the place of `tests.twins.mendable:mails`."""
    member.run(mendable.MendableMails, NoInbox)


def mails_retries_twice() -> None:
    """Run its retry worker."""
    retry.run(mendable.MendableMails, RetryNoInbox)


def offset_before_burial() -> None:
    """Run it in the place of `tests.twins.mendable:main`."""
    member.run(mendable.Mendable, OffsetBeforeBurial)


def mark_before_burial() -> None:
    """Run it in the place of `tests.twins.mendable:retries`."""
    retry.run(mendable.Mendable, MarkBeforeBurial)


def note_before_sending() -> None:
    """Run it in the place of `tests.twins.mendable:operate`."""
    mendable.operate(NoteBeforeSending)
