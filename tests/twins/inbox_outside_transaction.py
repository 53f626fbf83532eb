"""Twin: the payment consumer whose inbox row is committed by itself, before the charge.

The transaction is not held open while the gateway is waited for, which looks like good manners, and no event is ever
charged twice. But the inbox now says "done" of something that was only begun: an attempt that fails after it is taken
for a success by the next one, which commits the offset of an order that nobody charged. Found by "nothing lost" where
the charge does not get through (`http.post`: crash-before, crash-late, lose-request, refuse) and where the attempt ends
right after the inbox row (`postgres.write`: crash-after, lose-reply; its brother has no such point). Nowhere else: once
the gateway has charged, what is missing is only our record of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from pipeline.events import OrderPlaced


class InboxOutsideTransaction(Payment):
    """Notes first, works later."""

    def handle(self, event: OrderPlaced) -> None:
        """BUG: should note the event in the transaction of its effect."""
        with self._database.connection() as connection:
            fresh = self.first_time(connection, event)
        if fresh:
            with self._database.transaction() as connection:
                self.charge(connection, event)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(InboxOutsideTransaction)
