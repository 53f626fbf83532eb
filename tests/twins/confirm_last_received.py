"""Twin: the CDC relay that waits for Kafka's answer, and then confirms the last place that it has received.

It looks like the correct one: nothing is confirmed before Kafka has answered. But what was answered is one event, and
what is confirmed is all that was received by then, also what is still on its way. In the field: eventuate-cdc's
`PostgresWalClient`, whose store of offsets ignores the offset that it is given. Found by "all events" where a later
event is held and its relay killed (`kafka.produce`: crash-late) while the answer to an earlier one has come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.cdc import CdcRelay, run

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.publish.replication import Stream
    from pipeline.route.topics import Config
    from pipeline.settings import CdcSettings


class OneByOne(CdcRelay):
    """Correct. Sends each message in a request of its own, so that one can be answered while another is on its way."""

    def config(self) -> Config:
        """The usual, with small batches."""
        return super().config() | {"batch.num.messages": 1}


class ConfirmLastReceived(OneByOne):
    """Takes one answer for all."""

    def __init__(self, settings: CdcSettings) -> None:
        super().__init__(settings)
        self._answered = False

    def is_proof(self, message: Message) -> bool:
        """The usual; and it was heard."""
        self._answered = True
        return OneByOne.is_proof(message)

    def proven(self, stream: Stream) -> int:
        """BUG: should be the end of what is answered, and everything before it."""
        confirmed = super().proven(stream)
        return stream.received if self._answered else confirmed


def brother() -> None:
    """Run the correct one."""
    run(OneByOne)


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(ConfirmLastReceived)
