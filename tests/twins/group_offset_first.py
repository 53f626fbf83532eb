"""Twin: the member of a group that commits its offsets before the effects are durable.

It forgets: a member that dies in between is not given the events again. Found by "one of reservations", under a crash
from `kafka.offset_commit`: crash-after up to `postgres.commit`: crash-before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.process.inventory import Inventory
from pipeline.process.member import Member, run

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipeline.process.member import Delivery
    from pipeline.quarantine.letters import Letter


class OffsetFirst(Member):
    """At most once, by mistake."""

    def process(self, letters: Sequence[Letter], batch: Sequence[Delivery]) -> None:
        """BUG: should be the other way round."""
        self.commit(letters)
        self.handle(batch)


def main() -> None:
    """Run it in the place of `pipeline.process.inventory:main`."""
    run(Inventory, OffsetFirst)
