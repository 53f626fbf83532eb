"""Twin: the API that takes an error at COMMIT for a success.

The insert statements have all gone well, so the order "is in"; a hiccup afterwards is logged, and the customer is not
bothered with it. Yet after a COMMIT that failed nobody knows, and most often nothing is there: the customer holds an
order id that does not exist, and will not ask again. Found by "nothing lost" where the commit does not happen and its
client lives on (`postgres.commit`: lose-request, refuse=40001), and nowhere else: after lose-reply the guess is right,
and a client of an API that crashed asks again.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from psycopg import OperationalError

from pipeline.write.api import run
from pipeline.write.orders import record

if TYPE_CHECKING:
    from psycopg import AsyncConnection

    from pipeline.write.orders import Placement

log = logging.getLogger(__name__)


async def place(connection: AsyncConnection, asked: Placement) -> str:
    """BUG: should let the error through, so that the client hears 503 and asks again with the same key."""
    reply = ""
    try:
        async with connection.transaction():
            reply = await record(connection, asked)
    except OperationalError as hiccup:
        if not reply:
            raise
        log.warning("Ignored, the order is in: %s", hiccup)
    return reply


def main() -> None:
    """Run it in the place of `pipeline.write.api:main`."""
    run(place)
