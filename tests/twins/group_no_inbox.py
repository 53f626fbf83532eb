"""Twin: the notification group that trusts Kafka to bring each event once.

It mails twice what it is given twice. Found by "one of mails" under a crash from `postgres.commit`: crash-after up to
`kafka.offset_commit`: crash-before of an outcome.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.process.member import Member, Work, run
from pipeline.process.notification import Notification

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from pipeline.events import Event
    from pipeline.quarantine.letters import Letter


class Forgetful(Work):
    """Has no inbox."""

    def once(self, connection: psycopg.Connection, events: Iterable[Event]) -> int:
        """BUG: should ask which of them the group has not seen."""
        if given := list(events):
            self.handler.effect(connection, given)
        return len(given)


class NoInbox(Member):
    """At least once, and nothing against it."""

    work = Forgetful


class Seldom(NoInbox):
    """Commits once a second, as Kafka's clients do by themselves: whoever goes leaves much to be done again."""

    due = 0.0

    def commit(self, letters: Sequence[Letter]) -> None:
        """The usual, sometimes."""
        if time.monotonic() >= self.due:
            super().commit(letters)
            self.due = time.monotonic() + 1


def main() -> None:
    """Run it in the place of `pipeline.process.notification:main`."""
    run(Notification, NoInbox)


def seldom() -> None:
    """Likewise, with commits once a second. Found wherever members leave."""
    run(Notification, Seldom)
