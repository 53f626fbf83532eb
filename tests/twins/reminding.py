"""The correct brother of `reminder_in_memory`: an API that sends an order's event again until somebody has charged it.

With it goes a consumer that makes one attempt per event, so that none can hold up those behind it or kill its consumer
twice: `inbox_outside_transaction`, which alone loses what it fails at. Here what counts is what came out at the other
end: the gateway is asked about an order that is overdue. If it was charged, only our record of that was missing; if
not, it is sent again, as a new event. One too many is harmless, the key being the order's. Which orders are overdue is
read from the tables, so that whoever looks next sees the same.
"""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from http.client import HTTPConnection, HTTPException
from threading import Thread
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pipeline.runtime import Database, Unavailable
from pipeline.settings import load
from pipeline.write import api, orders
from tests.thin import payment
from tests.twins.inbox_outside_transaction import InboxOutsideTransaction

if TYPE_CHECKING:
    import psycopg

    from pipeline.events import OrderPlaced
    from pipeline.write.api import Place

OVERDUE_S = 0.5  # many times what an order takes, and less than the grace that a drill gives
LOOK_S = 0.05

OVERDUE = """
    select order_id from orders join outbox using (order_id)
    where state = 'pending' and published_at < now() - make_interval(secs => %s)
"""
REMIND = """
    update outbox set published_at = null, event_id = new.id,
        payload = (payload::jsonb || jsonb_build_object('event_id', new.id))::json
    from gen_random_uuid() as new (id) where order_id = %s and published_at is not null
"""
SETTLE = "update orders set state = 'confirmed' where order_id = %s"


class OneAttempt(InboxOutsideTransaction):
    """Whatever becomes of an attempt, the event is not tried again."""

    def charge(self, connection: psycopg.Connection, event: OrderPlaced) -> None:
        """Charge the order unless an earlier event has led to that."""
        known = connection.execute("select 1 from payments where key = %s", [self.key(event)]).fetchone()
        if known is None:
            super().charge(connection, event)


class Reminder:
    """Looks after accepted orders, in a thread beside the API."""

    def __init__(self, database: Database, gateway_url: str) -> None:
        self._database, self._gateway = database, urlsplit(gateway_url)

    def work(self) -> None:
        """Remind until the process ends."""
        while True:
            with suppress(Unavailable, OSError, HTTPException):  # what is overdue will still be
                self.remind()
            time.sleep(LOOK_S)

    def remind(self) -> None:
        """Have the relay publish again what is overdue, but for what was charged."""
        with self._database.connection() as connection:
            for order_id in self.overdue(connection):
                connection.execute(SETTLE if self.charged(order_id) else REMIND, [order_id])

    def overdue(self, connection: psycopg.Connection) -> list[str]:
        """The orders that were published a while ago and are not settled."""
        return [order_id for (order_id,) in connection.execute(OVERDUE, [OVERDUE_S])]

    def charged(self, order_id: str) -> bool:
        """Whether the gateway knows of a request for this order."""
        with closing(HTTPConnection(self._gateway.hostname or "", self._gateway.port, timeout=1)) as connection:
            connection.request("GET", f"/charges?order_id={order_id}")
            return bool(json.loads(connection.getresponse().read()))


def run(reminder: type[Reminder] = Reminder, place: Place = orders.place) -> None:
    """Run the API, and a reminder beside it, until SIGTERM. The arguments are for seeded bugs."""
    settings = load(payment.PaymentSettings)  # the API's own have no gateway
    work = reminder(Database(settings.database_url), settings.gateway_url).work
    Thread(target=work, name="reminder", daemon=True).start()
    api.run(place)


def main() -> None:
    """Run it in the place of `pipeline.write.api:main`."""
    run()


def consume() -> None:
    """Run it in the place of `tests.thin.payment:main`."""
    payment.run(OneAttempt)
