"""Twin: the notification group that trusts Kafka to bring each event once.

It mails twice what it is given twice. Found by "one of mails" under a crash from `postgres.commit`: crash-after up to
`kafka.offset_commit`: crash-before of an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.process.member import Member, Work, run
from pipeline.process.notification import Notification

if TYPE_CHECKING:
    from collections.abc import Iterable

    import psycopg

    from pipeline.events import Event
    from pipeline.process.member import Handler
    from pipeline.runtime import Stop
    from pipeline.settings import GroupSettings


class NoInbox(Member):
    """At least once, and nothing against it."""

    def __init__(self, settings: GroupSettings, handler: Handler, stop: Stop) -> None:
        super().__init__(settings, handler, stop)
        self._work = Forgetful(self._work.database, handler, self._work.group, self._parking)


class Forgetful(Work):
    """Has no inbox."""

    def once(self, connection: psycopg.Connection, events: Iterable[Event]) -> None:
        """BUG: should ask which of them the group has not seen."""
        if given := list(events):
            self.handler.effect(connection, given)


def main() -> None:
    """Run it in the place of `pipeline.process.notification:main`."""
    run(Notification, NoInbox)
