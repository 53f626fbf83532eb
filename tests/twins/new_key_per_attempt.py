"""Twin: the payment consumer with a new gateway key for every attempt.

The inbox is kept, so a plain redelivery does no harm and the code looks careful. But the inbox row is rolled back when
the worker dies, or loses the gateway's reply, between charge and COMMIT; the next attempt then asks with a key that the
gateway has never seen, and the card is charged again. Found by the drills that break the charge after it was received
(`http.post`: crash-after, lose-reply) or the transaction before it is durable (`postgres.commit`: crash-before,
lose-request), and nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from pipeline.events import OrderPlaced


class NewKeyPerAttempt(Payment):
    """Deterministic in nothing but its mistake."""

    def key(self, event: OrderPlaced) -> str:
        """BUG: should be derived from the order."""
        return f"{event.order_id}-{uuid4()}"


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(NewKeyPerAttempt)
