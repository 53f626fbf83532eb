"""Twin: the notification group that notes an event in a transaction of its own, before the mail is written.

It forgets: what was noted and not written is passed over when it comes again. Found by "one of mails" under a crash
from the first `postgres.commit` of an outcome: crash-after up to the second: crash-before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.process import inbox
from pipeline.process.member import Member, Work, run
from pipeline.process.notification import Notification

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.process.member import Delivery


class Hasty(Work):
    """Keeps its transactions short."""

    def together(self, batch: Sequence[Delivery]) -> None:
        """BUG: should note them in the transaction of the effect. Nothing is parked where it is tried."""
        by_id = {one.event.event_id: one.event for one in batch}
        with self.database.transaction() as connection:
            new = inbox.first_times(connection, self.group, by_id)
        if new:
            with self.database.transaction() as connection:
                self.handler.effect(connection, [event for event_id, event in by_id.items() if event_id in new])


class InboxApart(Member):
    """A member that works so."""

    work = Hasty


def main() -> None:
    """Run it in the place of `pipeline.process.notification:main`."""
    run(Notification, InboxApart)
