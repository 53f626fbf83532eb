"""Twin: the CDC relay that confirms what it has received.

Most examples do so, and it works for as long as nobody dies: what was received is about to be produced. A relay that
dies in between is not sent it again. Found by `kafka.produce`: crash-before, crash-late. A lost request librdkafka
sends again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.cdc import CdcRelay, run

if TYPE_CHECKING:
    from pipeline.publish.replication import Stream


class ConfirmOnReceipt(CdcRelay):
    """Takes its own memory for the topic."""

    def proven(self, stream: Stream) -> int:
        """BUG: should be what Kafka has given an offset."""
        return stream.received

    def deliver(self) -> None:
        """Hand over what is confirmed already."""
        self._confirm()
        super().deliver()


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(ConfirmOnReceipt)
