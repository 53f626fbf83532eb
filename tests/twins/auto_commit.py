"""Twin: the payment consumer that leaves its offsets to librdkafka: `enable.auto.commit`, the default.

It is what every first example does, and most crashes do no harm: between the poll and the end of a charge the clock
seldom strikes. But what is committed by the clock is what was handed out, not what was done: a charge that takes longer
than the interval is committed while it is under way, and a process that dies then will not be given it again. Found by
"nothing lost" under `http.post`: crash-late, where the charge is held until the background commit went through, and,
when the clock happens to strike, by other crashes before the charge; nowhere else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.thin.consumer import GroupConsumer
from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from confluent_kafka import Message

    from pipeline.route.topics import Config


class AutoCommit(GroupConsumer):
    """Has its offsets committed by the clock."""

    def config(self) -> Config:
        """BUG: should switch both off. The interval is short, so that any charge is a slow one."""
        clock = {"enable.auto.commit": True, "enable.auto.offset.store": True, "auto.commit.interval.ms": 50}
        return super().config() | clock

    def commit(self, message: Message) -> None:
        """BUG: should commit here."""


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(Payment, AutoCommit)
