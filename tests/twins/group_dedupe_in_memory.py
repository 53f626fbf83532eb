"""Twin: the notification group that remembers in its memory what it has mailed.

A redelivery to the same process is recognised, so every test without a crash is green. Found by "one of mails" under a
crash from `postgres.commit`: crash-after up to `kafka.offset_commit`: crash-before of an outcome.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.process.member import Member, Work, run
from pipeline.process.notification import Notification

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    import psycopg

    from pipeline.events import Event

done: set[UUID] = set()


class Remembering(Work):
    """Has no inbox, and a set."""

    def once(self, connection: psycopg.Connection, events: Iterable[Event]) -> int:
        """BUG: should ask the inbox which of them the group has not seen."""
        new = [event for event in events if event.event_id not in done]
        if new:
            self.handler.effect(connection, new)
            done.update(event.event_id for event in new)
        return len(new)


class DedupeInMemory(Member):
    """Believes that it will live for ever."""

    work = Remembering


def main() -> None:
    """Run it in the place of `pipeline.process.notification:main`."""
    run(Notification, DedupeInMemory)
