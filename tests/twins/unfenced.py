"""Twin: the relay with Kafka's transactions under an id that is new in each process.

It is how every second example reads, since two producers with one id "get in each other's way". That is what the id is
for: a relay that was stopped for so long that another one has its slot goes on with its transaction when it wakes, and
nobody knows that it should not. Found by "order per key", which is told of each copy, with two replicas, where one is
frozen inside a transaction until the other has taken over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from pipeline.publish.cdc import run
from pipeline.publish.exactly_once import ExactlyOnce

if TYPE_CHECKING:
    from pipeline.route.topics import Config


class Unfenced(ExactlyOnce):
    """Nobody's successor."""

    def config(self) -> Config:
        """BUG: should be the slot's."""
        return super().config() | {"transactional.id": uuid4().hex}


def main() -> None:
    """Run it in the place of `pipeline.publish.relay:main`."""
    run(Unfenced)
