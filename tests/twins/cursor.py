"""Twin: the polling relay that reads on behind the last row it has published.

It is what "read the log from an offset" looks like in SQL, and needs no index of what is unpublished. But ids are
allotted at INSERT and seen at COMMIT: a row that commits late has a lower id than one that was published, and is never
looked at again. Found by "all events" without any fault.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import class_row

from pipeline.publish.outbox import Row
from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    import psycopg

BEHIND = """
    select event_id::text, order_id, type, payload::text, traceparent, seq from outbox
    where id > (select coalesce(max(id), 0) from outbox where published_at is not null) order by id limit 1000
"""


class Cursor(Relay):
    """Never looks back."""

    def claim(self, connection: psycopg.Connection) -> list[Row]:
        """BUG: should ask what is unpublished."""
        return connection.cursor(row_factory=class_row(Row)).execute(BEHIND).fetchall()


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(Cursor)
