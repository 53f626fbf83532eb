"""Orders that stay pending: what somebody knows of them is looked up, and the order is told.

A charge whose confirmation never arrived is known to the gateway alone: the reply was lost, and the event has been
given up or is nowhere. So the gateway is asked for the order's key, which moves nothing. What it says is kept as the
payment group keeps it, with the event's row in the group's inbox: the event that comes after all is passed over, and
who is handling it this moment is left to it. It is then for the group, its retry worker or nobody to go on.

Nothing is guessed. A charge that the gateway does not know may be on its way, however long that has been, so such an
order stays pending, and the log says what it waits for. Goods are reserved in the transaction that tells the order;
of them nobody knows more than the order does.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from psycopg.errors import LockNotAvailable

from pipeline.gateway_client import Asked, Refused
from pipeline.observe.logs import about
from pipeline.process import inbox
from pipeline.process.payment import Payment
from pipeline.quarantine.parking import Parking
from pipeline.route.topics import full_name
from pipeline.runtime import Database, Outage, Stop, Unavailable, begin
from pipeline.settings import ReconcileSettings, load

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger(__name__)

AT_ONCE = 100  # orders that are read together
BEGINNING = (datetime.min.replace(tzinfo=UTC), "")

OVERDUE = """
    select orders.created_at, orders.order_id, amount, currency, payment, coalesce(event_id, (
        select event_id from parked_events
        where parked_events.consumer_group = %s and parked_events.order_id = orders.order_id order by place limit 1
    )), (
        select string_agg(format('%%s has parked it: %%s', consumer_group, reason), '; ')
        from parked_orders where parked_orders.order_id = orders.order_id
    )
    from orders left join outbox on outbox.order_id = orders.order_id and seq = 1
    where state = 'pending' and orders.created_at < now() - make_interval(secs => %s)
        and (orders.created_at, orders.order_id) > (%s, %s)
    order by orders.created_at, orders.order_id limit %s
"""
# Milliseconds. Who holds the event's row in the inbox is handling it, and who holds the parked order is trying to.
IMPATIENT = "set local lock_timeout = 100"
RECORD = "insert into reconciliations (order_id, found) values (%s, %s)"


class Overdue(NamedTuple):
    """A pending order, its first event if that is still known, and who has parked it.

    What a group has parked of an order whose payment is not known begins with that event.
    """

    since: datetime
    order_id: str
    amount: int
    currency: str
    payment: str | None
    event_id: UUID | None
    parked: str | None


class Reconciler:
    """Looks after orders that have been pending for too long. There may be several."""

    def __init__(self, settings: ReconcileSettings) -> None:
        self._settings = settings
        self._payment = Payment()
        self._group = full_name(settings, Payment.name)
        self._parking = Parking(self._group, sys.maxsize)  # it adds nothing
        self._database = Database(settings.database_url)
        self._after = BEGINNING
        self._stuck: dict[str, str] = {}  # orders, and why
        self._told: dict[str, str] = {}

    def look(self) -> bool:
        """Go on to the next few orders; False when those were the last, and the next look begins anew.

        Raises:
            Unavailable: a server is away. What is not resolved by then is looked at again.
        """
        with self._database.connection() as connection:
            asked = [self._group, self._settings.reconcile_after_s, *self._after, AT_ONCE]
            orders = [Overdue(*row) for row in connection.execute(OVERDUE, asked)]
        for order in orders:
            why = self.resolve(order)
            if why:
                self._stuck[order.order_id] = "; ".join(filter(None, [why, order.parked]))
            self._after = order[:2]
        if len(orders) < AT_ONCE:
            self._tell()
            self._after = BEGINNING
        return len(orders) == AT_ONCE

    def resolve(self, order: Overdue) -> str:
        """Tell the order what is known of its payment; why it stays pending, if nobody knows more."""
        if order.payment is not None:
            return "it is not known whether there are goods"
        try:
            charged = self.charged(order)
        except Refused as why:
            return str(why)
        if charged is None:
            return "the gateway has no charge"
        if order.event_id is None:
            return f"it was {'charged' if charged else 'declined'}, and its event is neither in the outbox nor parked"
        self.keep(order, order.event_id, charged=charged)
        return ""

    def charged(self, order: Overdue) -> bool | None:
        """What the gateway has answered, or will answer, to a charge of this order; None if that is not known."""
        return self._payment.gateway.charges(order.order_id).get(self.key(order))

    def keep(self, order: Overdue, event_id: UUID, *, charged: bool) -> None:
        """Do what the payment group does with the answer, unless it has, or is about to."""
        found = "charged" if charged else "declined"
        with self._database.connection() as connection, suppress(LockNotAvailable):
            with connection.transaction():
                connection.execute(IMPATIENT)
                if not inbox.first_time(connection, self._group, event_id):
                    return
                asked = Asked(self.key(order), order.order_id, order.amount, order.currency)
                self._payment.keep(connection, [asked], [charged])
                connection.execute(RECORD, [order.order_id, found])
                self._parking.hurry(connection, order.order_id)
            said = about(order.order_id, event_id)
            log.warning("Pending since %s, it was %s: told by the gateway.", order.since, found, extra=said)

    def key(self, order: Overdue) -> str:
        """That by which the payment group charges it."""
        return self._payment.key(order.order_id, "charge")

    def _tell(self) -> None:
        """Say which orders nobody knows more about, once for each reason."""
        for order_id, why in self._stuck.items() - self._told.items():
            log.warning("Order %s stays pending: %s.", order_id, why)
        self._told, self._stuck = self._stuck, {}


def run(reconciler: type[Reconciler] = Reconciler) -> None:
    """Reconcile until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("reconcile")
    stop, outage = Stop(), Outage("Orders stay pending; trying again")
    settings = load(ReconcileSettings)
    one = reconciler(settings)
    while not stop.asked:
        try:
            more = one.look()
        except Unavailable as why:
            outage.wait(stop, why)
        else:
            outage.over()
            if not more:
                stop.wait(settings.reconcile_interval_s)


def main() -> None:
    """Reconcile until SIGTERM."""
    run()
