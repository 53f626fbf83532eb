"""Twin: the relay that believes every report of success.

The producer is idempotent, so a broker refuses what comes after a gap, and librdkafka concludes that a message was
taken if the next one was: "implicitly acked". But a broker takes any first sequence number of a producer that it has
not heard of. If the first request of a new producer is refused (NOT_LEADER_OR_FOLLOWER, as while a leader changes) and
the second one, already on its way, is taken, the first message is reported as delivered, and is nowhere. Such a report
has no offset. In the field: confluent-kafka-go#921.

Found by two faults in the relay: it has to be killed, so that its successor has a new producer and several rows to
send, and the successor's first `kafka.produce` to be refused. An exploration has found it, in the relay that was the
correct brother until then; no sweep of depth 2 does, which breaks recoveries by kills alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.route.topics import Config


class OneByOne(Relay):
    """Correct. Sends each message in a request of its own, and its first ones at once, whatever the moment.

    It begins with a producer that has yet to ask for its id; until then what it is given waits, and goes out together.
    """

    def config(self) -> Config:
        """The usual, with small batches."""
        return super().config() | {"batch.num.messages": 1}

    def ready(self) -> None:
        """The usual, which makes the producer ready; so another."""
        super().ready()
        self._producer = self._new_producer()


class ImpliedDelivery(OneByOne):
    """Takes a conclusion for an answer."""

    @staticmethod
    def is_proof(_message: Message) -> bool:
        """BUG: should ask for the offset."""
        return True


def brother() -> None:
    """Run the correct one."""
    run(OneByOne)


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(ImpliedDelivery)
