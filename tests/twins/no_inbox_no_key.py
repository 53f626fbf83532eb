"""Twin: the payment consumer without any defence: no inbox, and a new gateway key for every attempt.

Every second delivery is a second charge. Found by whatever causes one: the four drills that find `new_key_per_attempt`,
and also those that lose the offset after a perfect transaction (`postgres.commit`: crash-after, lose-reply;
`kafka.offset_commit`: all but crash-after), as well as a relay that dies between produce and mark.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    import psycopg

    from pipeline.events import OrderPlaced


class NoInboxNoKey(Payment):
    """Believes that "at least once" means once."""

    def first_time(self, connection: psycopg.Connection, event: OrderPlaced) -> bool:  # noqa: ARG002 - that is the bug
        """BUG: should ask the inbox."""
        return True

    def key(self, event: OrderPlaced) -> str:
        """BUG: should be derived from the order."""
        return f"{event.order_id}-{uuid4()}"


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(NoInboxNoKey)
