"""Twin: the polling relay that takes rows out of the outbox, and then produces them.

`delete … returning` is one statement for claim and mark, no two relays get the same row, and the table stays small. But
what it returns is in the memory of a process from then on, and nowhere else. Found by "all events" under
`kafka.produce`: crash-before, crash-late, and under a refusal that ends the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import class_row

from pipeline.publish.outbox import Row
from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    import psycopg

TAKE = """
    delete from outbox where id in (select id from outbox order by id limit 1000)
    returning event_id::text, order_id, type, payload::text, traceparent, seq
"""


class DeleteBeforeProduce(Relay):
    """Takes its own memory for the outbox."""

    def claim(self, connection: psycopg.Connection) -> list[Row]:
        """BUG: should leave the rows until they are proven."""
        rows = connection.cursor(row_factory=class_row(Row)).execute(TAKE).fetchall()
        return sorted(rows, key=lambda row: row.seq)

    def mark(self, _connection: psycopg.Connection, _rows: list[Row]) -> None:
        """There is nothing left to mark."""


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(DeleteBeforeProduce)
