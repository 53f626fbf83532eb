"""Twin: the payment consumer that works in a thread, and calls `commit()` in its polling loop.

Without offsets, `commit()` commits what librdkafka has stored, and by default that is whatever it has handed out. In a
loop that works where it polls, this is what was done; here it is what was polled. It looks like the plain loop made
faster, and in peace each charge it was given is done. Found by "nothing lost" under `http.post`: crash-late, which
holds a charge until the commit went through. By chance also by other crashes, when the commit was faster than the
charge or more charges were waiting for the thread, and by the loss of the partitions meanwhile, such as
`kafka.offset_commit`: refuse=ILLEGAL_GENERATION. Its brother is `threaded`, which commits what is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.thin.payment import Payment, run
from tests.twins.threaded import Shift, Threaded

if TYPE_CHECKING:
    from pipeline.route.topics import Config


class AsyncCommit(Threaded):
    """Commits what was polled."""

    def config(self) -> Config:
        """BUG: should leave it off, so that nothing is stored that is not done."""
        return super().config() | {"enable.auto.offset.store": True}

    def commit_done(self, shift: Shift) -> None:
        """BUG: should name what is done."""
        shift.done.clear()
        self._consumer.commit(asynchronous=True)


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(Payment, AsyncCommit)
