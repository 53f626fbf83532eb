"""Twin: the relay that flushes, and takes the empty queue for success.

`flush()` returned, nothing is left, so everything was delivered: that is how most examples read. But a message that
Kafka refused for good has left the queue as well; only its delivery report says so, and nobody reads it. Found by a
final refusal of `kafka.produce` (`refuse=TOPIC_AUTHORIZATION_FAILED`, `refuse=MESSAGE_TOO_LARGE`), and nowhere else: a
refusal that may pass, such as NOT_LEADER_OR_FOLLOWER, librdkafka retries by itself, and a crash leaves nothing marked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.polling import Relay, Reports, run

if TYPE_CHECKING:
    import psycopg

    from pipeline.publish.outbox import Row


class FlushWithoutReports(Relay):
    """Waits for the answers without reading them."""

    def carry(self, connection: psycopg.Connection, batch: list[Row]) -> Reports:
        """BUG: should mark only what the reports prove, and say what failed."""
        self.await_reports(self.send(batch))
        self.mark(connection, batch)
        return Reports({row.event_id for row in batch})


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(FlushWithoutReports)
