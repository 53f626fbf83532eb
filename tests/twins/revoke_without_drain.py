"""Twin: the payment consumer that works in a thread, and lets partitions go without waiting for work in flight.

When partitions are revoked it commits where it stands and returns at once: nobody in the group has to wait, and what is
in flight goes on and will be done. Unless the process dies first: where it stands is behind the charges under way, and
the new owner begins there. Inbox and key do not help against what nobody is given again. Found by "nothing lost", only
where the group is rebalanced during a charge that then dies with its process: `http.post`: crash-late, with a newcomer
that joins the group meanwhile (a group of static members alone has no rebalance). By chance also by a crash elsewhere,
if it falls between the rebalance and the end of what was handed over; never without a crash. Its brother is `threaded`.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from confluent_kafka import KafkaException

from tests.thin.payment import Payment, run
from tests.twins.threaded import Shift, Threaded

if TYPE_CHECKING:
    from confluent_kafka import Consumer, TopicPartition


class RevokeWithoutDrain(Threaded):
    """Leaves with its hands full."""

    def revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """BUG: should wait for what is under way, and commit what is done."""
        self._shift = Shift()  # what is in the old one goes on, only nobody asks how it ended
        reached = [one for one in consumer.position(partitions) if one.offset >= 0]
        with suppress(KafkaException):  # what was not committed, the new owner does again
            if reached:
                consumer.commit(offsets=reached, asynchronous=False)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(Payment, RevokeWithoutDrain)
