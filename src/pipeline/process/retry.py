"""The retry worker of a group: handles the first events of orders that are parked, until they succeed or are given up.

In one transaction: take an order that is due, handle its first event, remove it. When that fails, the order is due
again later, each time twice as much later; when the budget is spent, the event goes to the group's dead letters, its
order is not tried any more, and its later events wait for it to come back. When a server is away nobody's budget is
spent. Several retry workers share the orders: none waits for another.

An order of which nothing is left is freed in a transaction of its own. A crash before that leaves a row without events,
which is due, and found.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, ClassVar

from pipeline.observe.logs import about
from pipeline.observe.process import done
from pipeline.process.inventory import Inventory
from pipeline.process.member import Handler, Work
from pipeline.process.notification import Notification
from pipeline.process.payment import Payment
from pipeline.quarantine.dead import DeadLetters
from pipeline.quarantine.letters import Failure
from pipeline.quarantine.parking import Parking
from pipeline.route.topics import full_name
from pipeline.runtime import AWAY, Database, Outage, Stop, Unavailable, begin
from pipeline.settings import RetrySettings, load

if TYPE_CHECKING:
    import psycopg

    from pipeline.quarantine.parking import Due, Parked

log = logging.getLogger(__name__)

LONGEST_PAUSE_S = 60.0


class Retry:
    """Handles what a group has parked."""

    work: ClassVar = Work  # a seeded bug may have another

    def __init__(self, settings: RetrySettings, handler: Handler) -> None:
        self._settings, self._handler = settings, handler
        group = full_name(settings, handler.name)
        self._parking = Parking(group, sys.maxsize)  # it only takes out
        self._database = Database(settings.database_url)
        self._work = self.work(self._database, handler, group, self._parking)
        self._dead = DeadLetters(settings, handler.name)

    def ready(self) -> None:
        """Raise `Unavailable` unless everything is there that handling needs."""
        self._database.connect()
        self._handler.ready()

    def carry(self) -> bool:
        """Try one order that is due; whether there was one.

        Raises:
            Unavailable: a server is away. Nothing has changed.
        """
        with self._database.transaction() as connection:
            due = self._parking.due(connection)
            if due is None:
                return False
            head = self._parking.head(connection, due.order_id)
            if head is not None:
                self.attempt(connection, due, head)
        if head is None:
            with self._database.transaction() as connection:
                self._parking.free(connection, due.order_id)
        return True

    def attempt(self, connection: psycopg.Connection, due: Due, head: Parked) -> None:
        """Handle an order's first event, or note that it has failed once more."""
        try:
            event = self._work.reader.read(head.letter.value)
            with connection.transaction():  # what it has begun is undone, and the order is ours still
                self._work.once(connection, [event] if event else [])
        except (Unavailable, *AWAY):
            raise
        except Exception as why:  # noqa: BLE001 - whatever it is, it is about this event
            self.failed(connection, due, head, why)
        else:
            self._parking.done(connection, head)
            done("events handled")

    def failed(self, connection: psycopg.Connection, due: Due, head: Parked, why: Exception) -> None:
        """Have it tried again later, or bury it. Buried first: a mark without a letter would be a loss."""
        attempts = due.attempts + 1
        if attempts < self._settings.retry_budget:
            pause = min(self._settings.retry_pause_s * 2**due.attempts, LONGEST_PAUSE_S)
            self._parking.again(connection, due, pause_s=pause, why=repr(why))
            return
        said = about(head.order_id, head.event_id, head.letter.traceparent)
        log.error("%s goes to the dead letters: %r", head.letter, why, extra=said)
        self._dead.bury([(head.letter, Failure.of(why, attempts=attempts, first=due.since))])
        done("letters buried")
        self._parking.again(connection, due, pause_s=None, why=repr(why))


HANDLERS: dict[str, type[Handler]] = {one.name: one for one in (Payment, Inventory, Notification)}


def run(handler: type[Handler] | None = None, retry: type[Retry] = Retry) -> None:
    """Run a retry worker until SIGTERM. The arguments are for variations on it, such as seeded bugs."""
    begin("retry")
    stop = Stop()
    settings = load(RetrySettings)
    worker = retry(settings, (handler or HANDLERS[settings.retry_group])())
    outage = Outage("What is parked stays so; trying again")
    outage.until(stop, worker.ready)
    while not stop.asked:
        try:
            if not worker.carry():
                stop.wait(settings.retry_interval_s)
        except Unavailable as why:
            outage.wait(stop, why)
        else:
            outage.over()


def main() -> None:
    """Run the retry worker of the group RETRY_GROUP until SIGTERM."""
    run()
