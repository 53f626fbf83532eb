"""Twin: the relay whose producer is not idempotent.

That is librdkafka's default, and the relay may duplicate anyway: when it dies between produce and mark, or loses the
mark. So why bother? Because this one duplicates while nothing of it fails: it retries when a reply was lost, and the
broker does not recognise what it has. The inbox of each consumer removes that, and hides it. So it is judged by the
topic itself (`topic_ledger`): one message per event, when nothing but a reply was lost. Found by `kafka.produce`:
lose-reply, and nowhere else where its brother holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.publish.polling import Relay, run

if TYPE_CHECKING:
    from pipeline.route.topics import Config


class NoIdempotence(Relay):
    """Retries what it cannot make recognised."""

    def config(self) -> Config:
        """BUG: should leave it on."""
        return super().config() | {"enable.idempotence": False}


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(NoIdempotence)
