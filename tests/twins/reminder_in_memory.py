"""Twin: the API that keeps in its memory which orders it has to look after.

It has just accepted the order, so it knows; why ask the tables every time? It is what a background task of a request
comes to. The consumer behind it gives up on an order now and then (one attempt per event), and the reminder brings it
back; the API dies now and then, and no order needs its reminder just then. No single fault does any harm. But an order
that both have let go is pending for ever.

Found by two faults, in either order of time. The consumer has to fail or die between an order's inbox row and its
charge (`postgres.write`: crash-after, lose-reply; `http.post`: crash-before, crash-late, lose-request, refuse); and the
API has to die, however, after it has accepted that order and before it reminds of it, so at any point of the orders
behind it. Not at the order's own: a client that got no answer asks again, and the new process takes note. Its brother
is `reminding`.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from pipeline.write import orders
from tests.twins.reminding import OVERDUE_S, Reminder, run

if TYPE_CHECKING:
    import psycopg
    from psycopg import AsyncConnection

    from pipeline.write.orders import Placement

accepted: dict[str, float] = {}

PENDING = "select order_id from orders where state = 'pending' and order_id = any(%s)"


async def place(connection: AsyncConnection, asked: Placement) -> str:
    """BUG: should rely on the tables, in which the order is now."""
    reply = await orders.place(connection, asked)
    accepted[json.loads(reply)["order_id"]] = time.monotonic()
    return reply


class RemindsFromMemory(Reminder):
    """Looks after the orders that it knows."""

    def overdue(self, connection: psycopg.Connection) -> list[str]:
        """BUG: should ask for every order that is overdue, whoever accepted it."""
        now = time.monotonic()
        late = [order_id for order_id, since in list(accepted.items()) if since < now - OVERDUE_S]
        pending = [order_id for (order_id,) in connection.execute(PENDING, [late])] if late else []
        for order_id in late:
            del accepted[order_id]
        accepted.update(dict.fromkeys(pending, now))
        return pending


def main() -> None:
    """Run it in the place of `pipeline.write.api:main`."""
    run(RemindsFromMemory, place)
