"""Twin: the relay that marks rows as published as soon as it has produced them, and awaits the reports afterwards.

It looks as if nothing could happen in between: `produce()` did not raise, the flush follows at once, and it even saves
the wait before the mark. But `produce()` only puts a message into a queue. A relay that dies now has marked what Kafka
was never sent, and nobody will send it. Found by `kafka.produce`: crash-late, where the mark goes through on the other
connection while the produce is held, and by a refusal that ends the message (`refuse=TOPIC_AUTHORIZATION_FAILED`). By
chance also by other crashes around it, if the mark is faster than the produce, or than the second produce of a batch.
Nowhere else: what is lost on the way without a crash, librdkafka sends again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    import psycopg

    from pipeline.publish.outbox import Row
    from pipeline.publish.polling import Reports


class MarkBeforeReport(Relay):
    """Takes the queue for the topic."""

    def carry(self, connection: psycopg.Connection, batch: list[Row]) -> Reports:
        """BUG: should mark last, and only what the reports prove."""
        reports = self.send(batch)
        self.mark(connection, batch)
        self.await_reports(reports)
        return reports


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(MarkBeforeReport)
