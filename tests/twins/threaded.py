"""The correct brother of `async_commit` and `revoke_without_drain`: a payment consumer that works in a thread.

The loop goes on polling while a charge is under way, so that a slow gateway never costs it its membership. What was
handed to the thread and what is done are two things now, and only the latter is committed. When partitions are revoked
it begins nothing new, waits for the charge that is under way, commits what was done, and lets go; when they were lost,
it commits nothing, as they are somebody else's already. One thread, first in first out: what is done before a message
is everything before it. How much waits for the thread is not bounded; a consumer in production would pause.
"""

from __future__ import annotations

from queue import Empty, SimpleQueue
from threading import Thread
from typing import TYPE_CHECKING

from pipeline.runtime import Outage, Unavailable
from tests.thin.consumer import GroupConsumer, where
from tests.thin.payment import Payment, run

if TYPE_CHECKING:
    from confluent_kafka import Consumer, Message, TopicPartition

    from pipeline.events import OrderPlaced

    Ended = Message | Exception | None

POLL_S = 0.01  # how long a charge that is done waits for its commit


class Shift:
    """The work of one assignment: what of it is under way, what ended and how, and what is done and not committed."""

    def __init__(self) -> None:
        self.over = False  # nothing more of it is begun or tried again
        self.under_way = 0
        self.ended: SimpleQueue[Ended] = SimpleQueue()  # None: it was let go
        self.done: list[Message] = []

    def collect(self, *, wait: bool) -> None:
        """Take in what has ended, and raise what it ended with; with `wait`, until nothing is under way any more."""
        while self.under_way:
            try:
                ended = self.ended.get(block=wait)
            except Empty:
                return
            self.under_way -= 1
            if isinstance(ended, Exception):
                raise ended
            if ended is not None:
                self.done.append(ended)


class Threaded(GroupConsumer):
    """Polls in one thread, works in another."""

    def run(self) -> None:
        """Consume until asked to stop."""
        self._shift = Shift()
        self._todo: SimpleQueue[tuple[Shift, Message, OrderPlaced]] = SimpleQueue()
        Thread(target=self._work, name="work", daemon=True).start()
        try:
            self._consumer.subscribe([self._topic], on_revoke=self.revoked, on_lost=self.lost)
            self._outage.until(self._stop, self._handler.ready)
            while not self._stop.asked:
                message = self._consumer.poll(POLL_S)
                if message is not None:
                    self._receive(message)
                self._shift.collect(wait=False)
                self.commit_done(self._shift)
        finally:
            self._consumer.close()  # in which its partitions are revoked

    def process(self, message: Message, event: OrderPlaced) -> None:
        """Hand it to the thread."""
        self._shift.under_way += 1
        self._todo.put((self._shift, message, event))

    def commit_done(self, shift: Shift) -> None:
        """Commit what was done, oldest first. What cannot be committed now can be later."""
        try:
            while shift.done:
                self.commit(shift.done[0])
                del shift.done[0]
        except Unavailable as why:
            self._outage.tell(why)

    def revoked(self, _: Consumer, __: list[TopicPartition]) -> None:
        """The partitions are to go to somebody else, who waits for us: drain, commit, let go."""
        shift = self._hand_over()
        shift.collect(wait=True)
        self.commit_done(shift)

    def lost(self, _: Consumer, __: list[TopicPartition]) -> None:
        """The partitions are somebody else's already."""
        self._hand_over()

    def _hand_over(self) -> Shift:
        shift, self._shift = self._shift, Shift()
        shift.over = True
        return shift

    def _work(self) -> None:
        outage = Outage("Holding at this place, nothing is skipped; trying again")
        while True:
            shift, message, event = self._todo.get()
            shift.ended.put(self._attempt(shift, message, event, outage))

    def _attempt(self, shift: Shift, message: Message, event: OrderPlaced, outage: Outage) -> Ended:
        while not shift.over:
            try:
                self.handle(event)
            except Unavailable as why:
                outage.wait(self._stop, why)
            except Exception as why:  # noqa: BLE001 - whatever it is, the process ends by it, not the thread alone
                why.add_note(f"at {where(message)}, whose offset is not committed")
                return why
            else:
                outage.over()
                return message
        return None


def main() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    run(Payment, Threaded)
