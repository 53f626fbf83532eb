"""Twin: the relay with Kafka's transactions that does not look how far the last one went.

All events of a look are committed in one transaction, or none: that reads like exactly once. But the slot is told
afterwards, and a relay that dies in between is sent what is on the topic, and puts it there once more. Kafka's
transactions alone do not help against that; a place that is written in them, and read at the start, does. Found by
"order per key", which is told of each copy, under `kafka.commit_transaction`: crash-after, lose-reply, and
`postgres.confirm`: crash-before.
"""

from __future__ import annotations

from pipeline.publish.cdc import run
from pipeline.publish.exactly_once import ExactlyOnce, Place


class ForgetPlace(ExactlyOnce):
    """Believes the slot."""

    def read_place(self) -> Place:
        """BUG: should be what Kafka has."""
        return Place()


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(ForgetPlace)
