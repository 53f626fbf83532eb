"""Twin: the payment consumer that remembers in its memory what it has done, and makes a new key for each attempt.

A redelivery to the same process is recognised, also one that the relay caused, so every test without a crash is green.
The memory dies with the process, and an attempt of which only the end failed is not in it. Found by any crash between
charge and offset commit (`http.post`: crash-after; `postgres.commit`: crash-before, crash-late, crash-after;
`kafka.offset_commit`: crash-before, crash-late), and, in the same process, where an attempt fails after the charge
(`http.post`: lose-reply; `postgres.commit`: lose-request, lose-reply, refuse). Nowhere else: not by a lost offset
commit, after which the same process is asked again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID, uuid4

from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    import psycopg

    from pipeline.events import OrderPlaced

done: set[UUID] = set()


class InMemoryDedupe(Payment):
    """Believes that it will live for ever."""

    def handle(self, event: OrderPlaced) -> None:
        """BUG: should leave the remembering to the inbox."""
        super().handle(event)
        done.add(event.event_id)

    def first_time(self, connection: psycopg.Connection, event: OrderPlaced) -> bool:  # noqa: ARG002 - that is the bug
        """BUG: should ask the inbox."""
        return event.event_id not in done

    def key(self, event: OrderPlaced) -> str:
        """BUG: should be derived from the order."""
        return f"{event.order_id}-{uuid4()}"


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(InMemoryDedupe)
