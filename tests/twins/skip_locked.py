"""Twin: the polling relay that shares the outbox with others by `for update skip locked`, row by row.

It is the queue in Postgres as everybody knows it, no row is worked on twice, nothing is lost, and a killed one's rows
are free at once. But while one has the first event of an order, another one skips it, takes the second, and may be
faster. Found by "order per key" with two replicas, where the first produce is slow (`kafka.produce`: delay, hold).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg.rows import class_row

from pipeline.publish.outbox import Row
from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    import psycopg

FREE = """
    select event_id::text, order_id, type, payload::text, traceparent, seq from outbox
    where published_at is null order by id limit 1000 for update skip locked
"""
MARK = "update outbox set published_at = now() where (order_id, seq) = (%s, %s)"


class SkipLocked(Relay):
    """Locks rows, where the order should be locked."""

    def publish(self) -> int:
        """One round in one transaction, so that the locks last; but not that of leading, which all others wait for."""
        with self._database.connection() as connection:
            self._prepare(connection)
        with self._database.transaction():
            return super().publish()

    def claim(self, connection: psycopg.Connection) -> list[Row]:
        """BUG: should take all or nothing of an order."""
        return connection.cursor(row_factory=class_row(Row)).execute(FREE).fetchall()

    def mark(self, connection: psycopg.Connection, rows: list[Row]) -> None:
        """Whoever has the lock may mark."""
        connection.cursor().executemany(MARK, [(row.order_id, row.seq) for row in rows])


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(SkipLocked)
