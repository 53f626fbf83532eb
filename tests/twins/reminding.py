"""The correct brother of `reminder_in_memory`: an API that has an order published again until somebody has settled it.

What is acknowledged is the order's state, from one end to the other, and no hop in between has to be believed: with
this even a consumer that commits its offsets first (`offset_before_effect`) loses nothing. Which orders are overdue is
read from the tables, so that whoever looks next sees the same; a copy too many is what inbox and key are there for.
"""

from __future__ import annotations

import time
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING

from pipeline.runtime import Database, Unavailable
from pipeline.settings import ApiSettings, load
from pipeline.write import api, orders

if TYPE_CHECKING:
    import psycopg

    from pipeline.write.api import Place

OVERDUE_S = 0.5  # many times what an order takes, and less than the grace that a drill gives
LOOK_S = 0.05

OVERDUE = """
    select order_id from orders join outbox using (order_id)
    where state = 'pending' and published_at < now() - make_interval(secs => %s)
"""
REMIND = "update outbox set published_at = null where order_id = any(%s) and published_at is not null"


class Reminder:
    """Looks after accepted orders, in a thread beside the API."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def work(self) -> None:
        """Remind until the process ends."""
        while True:
            with suppress(Unavailable):  # what is overdue will still be
                self.remind()
            time.sleep(LOOK_S)

    def remind(self) -> None:
        """Have the relay publish again what is overdue."""
        with self._database.connection() as connection:
            if late := self.overdue(connection):
                connection.execute(REMIND, [late])

    def overdue(self, connection: psycopg.Connection) -> list[str]:
        """The orders that were published a while ago and are not settled."""
        return [order_id for (order_id,) in connection.execute(OVERDUE, [OVERDUE_S])]


def run(reminder: type[Reminder] = Reminder, place: Place = orders.place) -> None:
    """Run the API, and a reminder beside it, until SIGTERM. The arguments are for seeded bugs."""
    database = Database(load(ApiSettings).database_url)
    Thread(target=reminder(database).work, name="reminder", daemon=True).start()
    api.run(place)


def main() -> None:
    """Run it in the place of `pipeline.write.api:main`."""
    run()
