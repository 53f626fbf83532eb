"""Groups that cannot handle what is broken, their retry workers, and somebody who sends dead letters back.

What is broken, goods, a customer's address or the books, cannot be handled until it is mended, as where a new version
of the code has to come first. Whoever mends it presses `replay`, and once more to be sure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.events import ItemOrdered, ItemPriced
from pipeline.process import member, retry
from pipeline.process.inventory import Inventory
from pipeline.process.notification import Notification
from pipeline.process.payment import Payment
from pipeline.quarantine import replay
from pipeline.runtime import Database, Outage, Stop, Unavailable, begin
from pipeline.settings import ReplaySettings, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from pipeline.events import Event

TABLE = "create table broken (what text primary key, mended boolean not null default false)"
BROKEN = "select what from broken where what = any(%s) and not mended"
MENDED = "select count(*) from broken where mended"
LOOK_S = 0.02


class Mendable(Inventory):
    """Raises where it should reserve broken goods."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """The usual; and what fails has changed something before it does."""
        super().effect(connection, events)
        require_mended(connection, [event.sku for event in events if isinstance(event, ItemOrdered)])


class MendableMails(Notification):
    """Raises where it should write to a broken address: one that is called as the order is."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """As above."""
        super().effect(connection, events)
        require_mended(connection, [event.order_id for event in events])


class MendableBooks(Payment):
    """Raises where it should keep what it has charged for an order that is called broken: the confirmation is lost."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """As above, and the gateway has done its part."""
        super().effect(connection, events)
        require_mended(connection, [event.order_id for event in events if isinstance(event, ItemPriced)])


class Patient(member.Member):
    """Makes each attempt that it may, however slow the machine: each charges, and has to be found by its number."""

    patience_s = 60.0


def require_mended(connection: psycopg.Connection, things: Sequence[str]) -> None:
    """Raise `ValueError` if one of them is broken."""
    for (what,) in connection.execute(BROKEN, [list(things)]):
        raise ValueError(f"nobody can handle {what}, which is broken")


def main() -> None:
    """Run it in the place of `pipeline.process.inventory:main`."""
    member.run(Mendable)


def retries() -> None:
    """Run its retry worker."""
    retry.run(Mendable)


def mails() -> None:
    """Run it in the place of `pipeline.process.notification:main`."""
    member.run(MendableMails)


def mails_retries() -> None:
    """Run its retry worker."""
    retry.run(MendableMails)


def books() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    member.run(MendableBooks, Patient)


def books_retries() -> None:
    """Run its retry worker."""
    retry.run(MendableBooks)


def operate_books() -> None:
    """Send its dead letters back."""
    operate(group=Payment.name)


def operate(replaying: type[replay.Replay] = replay.Replay, group: str = Inventory.name) -> None:
    """Press twice whenever more is mended, until SIGTERM; who was killed presses again."""
    begin("replay")
    settings, stop, outage = load(ReplaySettings), Stop(), Outage("What is dead stays so; trying again")
    database, pressed_for = Database(settings.database_url), 0
    while not stop.asked:
        try:
            with database.connection() as connection:
                [(mended,)] = connection.execute(MENDED).fetchall()
            if mended > pressed_for:
                for _ in range(2):
                    letters = [one for one in replay.dead_letters(settings, group) if one.told["x-kind"] == "failing"]
                    replaying(settings, group, 1000).send(letters)
                pressed_for = mended
        except Unavailable as why:
            outage.wait(stop, why)
        else:
            outage.over()
            stop.wait(LOOK_S)
