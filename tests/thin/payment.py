"""The payment group of the thin pipeline: one event at a time, one order, one charge.

The simplest consumer that is right, with the places where others are wrong: seeded bugs are made of it (`tests.twins`),
the harness is measured on it, and `pipeline.process.payment` is compared with it.

In one transaction: note the event in the inbox, charge, record the payment, settle the order. The gateway is outside
that transaction, so a crash between charge and COMMIT asks it again, and what makes that harmless is the key: derived
from the order, the same in every attempt, after every crash and in every replay. The inbox alone would not do, nor
would the key alone: gateways forget keys after a while.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Literal

from chaos.checkpoint import checkpoint
from pipeline.process import inbox
from pipeline.route.topics import full_name
from pipeline.runtime import Database, Stop, begin
from pipeline.settings import Billed, ConsumerSettings, load
from tests.thin.charging import Gateway
from tests.thin.consumer import GroupConsumer

if TYPE_CHECKING:
    import psycopg

    from pipeline.events import OrderPlaced


class PaymentSettings(ConsumerSettings, Billed):
    """What it is told."""


class Payment:
    """Handles `order.placed`. Its small methods are the places where a payment consumer goes wrong."""

    name = "payment"

    def __init__(self, database: Database, gateway: Gateway, group: str) -> None:
        self._database, self._gateway, self._group = database, gateway, group

    def ready(self) -> None:
        """Connect to Postgres. The gateway is connected to at the first charge."""
        self._database.connect()

    def handle(self, event: OrderPlaced) -> None:
        """Charge the order unless that was done."""
        with self._database.transaction() as connection:
            if self.first_time(connection, event):
                self.charge(connection, event)

    def first_time(self, connection: psycopg.Connection, event: OrderPlaced) -> bool:
        """Whether this group has not acted upon the event yet."""
        return inbox.first_time(connection, self._group, event.event_id)

    def charge(self, connection: psycopg.Connection, event: OrderPlaced) -> None:
        """Have the gateway charge the order, and keep its answer."""
        checkpoint("payment.charging")
        key = self.key(event)
        state = self._gateway.charge(key, event)
        checkpoint("payment.charged")
        self.record(connection, event, key, state)
        checkpoint("payment.recorded")

    def key(self, event: OrderPlaced) -> str:
        """What makes two charges the same charge for the gateway."""
        return sha256(f"{event.order_id}|charge".encode()).hexdigest()

    def record(
        self, connection: psycopg.Connection, event: OrderPlaced, key: str, state: Literal["paid", "declined"]
    ) -> None:
        """Keep the gateway's answer and let the order follow it."""
        connection.execute(
            "insert into payments (key, order_id, amount, currency, state) values (%s, %s, %s, %s, %s)",
            [key, event.order_id, event.amount, event.currency, state],
        )
        outcome = "confirmed" if state == "paid" else "failed"
        connection.execute("update orders set state = %s where order_id = %s", [outcome, event.order_id])


def run(handler: type[Payment] = Payment, consumer: type[GroupConsumer] = GroupConsumer) -> None:
    """Run a member of the payment group until SIGTERM. The arguments are for variations on it, such as seeded bugs."""
    begin(handler.name)
    stop = Stop()
    settings = load(PaymentSettings)
    group = full_name(settings, handler.name)
    payment = handler(Database(settings.database_url), Gateway(settings.gateway_url), group)
    consumer(settings, payment, stop).run()


def main() -> None:
    """Run the payment consumer until SIGTERM."""
    run()
