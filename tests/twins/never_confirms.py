"""Twin: the CDC relay that is there, reports that it is, publishes, and confirms nothing.

It is what a relay looks like whose Kafka does not answer, or one whose author took the report for a sign of life: its
slot is `active`, so an alarm on inactive slots stays silent, while the log grows until the slot is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.cdc import CdcRelay, run

if TYPE_CHECKING:
    from pipeline.publish.replication import Stream


class NeverConfirms(CdcRelay):
    """Keeps its word to itself."""

    def proven(self, _stream: Stream) -> int:
        """BUG: should be what is on the topic."""
        return 0


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(NeverConfirms)
