"""Orders that stay pending are told what the gateway knows of them, and no more, beside whoever else tells them."""

from __future__ import annotations

import json
import time
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import psycopg
import pytest

from pipeline import reconcile
from pipeline.events import ItemPriced
from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.gateway_client import Asked, Gateway
from pipeline.process.member import Work
from pipeline.process.payment import Payment
from pipeline.quarantine.parking import Parking
from pipeline.reconcile import Reconciler
from pipeline.runtime import Database, Unavailable
from pipeline.settings import ReconcileSettings, load
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane
    from tests.pipeline.workers import Start, Worker

GROUP = "here.payment"
LATE_S = 60.0
TOLD = """
    select payment, state, array(select type from outbox where outbox.order_id = orders.order_id order by seq)
    from orders where order_id = %s
"""


@pytest.fixture
def settings(lane: Lane, gateway: Worker, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> ReconcileSettings:
    """For a reconciler of a shop without orders."""
    db.execute("truncate parked_events, parked_orders, reconciliations")
    monkeypatch.setenv("GATEWAY_URL", f"http://127.0.0.1:{gateway.port}")
    monkeypatch.setenv("DATABASE_URL", lane.postgres)
    monkeypatch.setenv("NAMESPACE", "here")
    monkeypatch.setenv("RECONCILE_AFTER_S", str(LATE_S))
    return load(ReconcileSettings)


@pytest.fixture
def one(settings: ReconcileSettings) -> Iterator[Reconciler]:
    """It."""
    one = Reconciler(settings)
    with closing(one._payment.gateway), closing(one._database):
        yield one


@pytest.fixture
def psp(gateway: Worker) -> Iterator[Gateway]:
    """A client of the gateway, such as the payment group has."""
    with closing(Gateway(f"http://127.0.0.1:{gateway.port}")) as psp:
        yield psp


def placed(
    db: psycopg.Connection, *, amount: int = 1999, ago_s: float = 2 * LATE_S, stock: str = "reserved"
) -> ItemPriced:
    """An order of some time ago, and its event."""
    order_id = str(uuid4())
    event = {"event_id": str(uuid4()), "type": "order.placed", "order_id": order_id, "seq": 1}
    db.execute(
        "insert into orders (order_id, customer_id, sku, quantity, amount, currency, stock, created_at)"
        " values (%s, 'c-1', 'sku-1', 1, %s, 'EUR', %s, now() - make_interval(secs => %s))",
        [order_id, amount, stock, ago_s],
    )
    payload = json.dumps({**event, "amount": amount, "currency": "EUR"})
    db.execute(
        "insert into outbox (event_id, order_id, seq, type, payload) values (%s, %s, 1, 'order.placed', %s)",
        [event["event_id"], order_id, payload],
    )
    return msgspec.json.decode(payload, type=ItemPriced)


def charged(psp: Gateway, event: ItemPriced, **changed: Any) -> None:
    """What the payment group does first; that nobody heard the answer is for the caller."""
    key = Payment.key(event.order_id, "charge")
    psp.charge([Asked(key, event.order_id, event.amount, event.currency)._replace(**changed)])


def told(db: psycopg.Connection, event: ItemPriced) -> Any:
    """What the order knows of its payment, its state, and its events."""
    [row] = db.execute(TOLD, [event.order_id]).fetchall()
    return row


def confirmed(db: psycopg.Connection, event: ItemPriced) -> bool:
    """Whether its order is."""
    return bool(told(db, event)[1] == "confirmed")


def delivered(settings: ReconcileSettings, event: ItemPriced) -> None:
    """The event comes to the payment group after all."""
    payment, database = Payment(), Database(settings.database_url)
    with closing(payment.gateway), closing(database), database.transaction() as connection:
        Work(database, payment, GROUP, Parking(GROUP, 10)).once(connection, [event])


NOTHING = (None, "pending", ["order.placed"])


@pytest.mark.parametrize(
    ("amount", "found", "state"), [(1999, "charged", "confirmed"), (DECLINED_AMOUNT, "declined", "failed")]
)
def test_a_lost_confirmation(  # noqa: PLR0917 - the fixtures, and one row of the table
    db: psycopg.Connection,
    settings: ReconcileSettings,
    psp: Gateway,
    one: Reconciler,
    amount: int,
    found: str,
    state: str,
) -> None:
    """The order is told what the gateway did, once: the event that comes late is passed over."""
    event = placed(db, amount=amount)
    charged(psp, event)
    assert one.look() is False
    expected = (found, state, ["order.placed", f"order.{state}"])
    assert told(db, event) == expected
    delivered(settings, event)
    one.look()
    assert told(db, event) == expected
    assert len(psp.charges(event.order_id)) == 1
    payments = db.execute("select order_id, amount, currency, state from payments").fetchall()
    assert payments == [(event.order_id, amount, "EUR", "paid" if found == "charged" else "declined")]
    assert db.execute("select order_id, found from reconciliations").fetchall() == [(event.order_id, found)]


def test_nothing_is_guessed(
    db: psycopg.Connection,
    settings: ReconcileSettings,
    psp: Gateway,
    one: Reconciler,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the gateway does not know by the group's own key stays unknown; that is said once, and can be done yet."""
    unknown, other_key = placed(db), placed(db)
    charged(psp, other_key, key="another")
    for _ in range(3):
        one.look()
    assert [told(db, event) for event in (unknown, other_key)] == [NOTHING, NOTHING]
    assert not db.execute("select from inbox").fetchall()
    said = [record.message for record in caplog.records]
    assert sorted(said) == sorted(
        f"Order {event.order_id} stays pending: the gateway has no charge." for event in (unknown, other_key)
    )
    delivered(settings, unknown)
    assert told(db, unknown)[1] == "confirmed"


def test_not_before_it_is_late(db: psycopg.Connection, psp: Gateway, one: Reconciler) -> None:
    """An order that is not overdue is left to those who handle it."""
    event = placed(db, ago_s=LATE_S / 2)
    charged(psp, event)
    one.look()
    assert told(db, event) == NOTHING


@pytest.mark.parametrize("succeeds", [True, False])
def test_beside_a_live_member(
    db: psycopg.Connection, settings: ReconcileSettings, psp: Gateway, one: Reconciler, *, succeeds: bool
) -> None:
    """Who is handling the event this moment is left to it, and not waited for; if it fails, the next look is for us."""
    event = placed(db)
    charged(psp, event)
    payment = Payment()
    with closing(payment.gateway), psycopg.connect(settings.database_url) as live:
        Work(Database(settings.database_url), payment, GROUP, Parking(GROUP, 10)).once(live, [event])
        began = time.monotonic()
        one.look()
        assert time.monotonic() - began < 2, "the reconciler waited for a member"
        assert told(db, event) == NOTHING
        if succeeds:
            live.commit()
        else:
            live.rollback()
    one.look()
    assert told(db, event)[1] == "confirmed"
    found = db.execute("select order_id from reconciliations").fetchall()
    assert found == ([] if succeeds else [(event.order_id,)])


def test_what_was_given_up_goes_on(
    db: psycopg.Connection, settings: ReconcileSettings, psp: Gateway, one: Reconciler
) -> None:
    """An order whose event is a dead letter, and was charged, is due: what waits behind is tried again."""
    event, hopeless = placed(db), placed(db)
    charged(psp, event)
    for each in (event, hopeless):
        db.execute("insert into parked_orders values (%s, %s, 5, null, 'it broke')", [GROUP, each.order_id])
    one.look()
    due = "select order_id from parked_orders where next_attempt_at <= now()"
    assert db.execute(due).fetchall() == [(event.order_id,)]
    assert one._told == {hopeless.order_id: f"the gateway has no charge; {GROUP} has parked it: it broke"}
    # Who is trying an order that is parked is left to it.
    charged(psp, hopeless)
    with psycopg.connect(settings.database_url) as live:
        live.execute("select from parked_orders where order_id = %s for no key update", [hopeless.order_id])
        one.look()
        assert told(db, hopeless) == NOTHING
    one.look()
    assert told(db, hopeless)[1] == "confirmed"


def test_what_cannot_be_resolved_is_in_nobodys_way(
    db: psycopg.Connection, psp: Gateway, one: Reconciler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many orders are stuck, the ones behind them are looked at; and then it begins anew."""
    monkeypatch.setattr(reconcile, "AT_ONCE", 2)
    stuck = [placed(db, ago_s=1000 + n) for n in range(3)]
    paid = placed(db, ago_s=1000)
    charged(psp, paid)
    assert [one.look() for _ in range(3)] == [True, True, False]
    assert told(db, paid)[1] == "confirmed"
    assert set(one._told) == {event.order_id for event in stuck}
    charged(psp, stuck[2])
    one.look()
    one.look()
    assert told(db, stuck[2])[1] == "confirmed"
    assert set(one._told) == {event.order_id for event in stuck[:2]}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("update orders set payment = 'charged', stock = null", "it is not known whether there are goods"),
        ("delete from outbox", "it was charged, and its event is neither in the outbox nor parked"),
    ],
)
def test_what_is_for_others(db: psycopg.Connection, psp: Gateway, one: Reconciler, change: str, why: str) -> None:
    """What it may not decide is said: inventory alone knows goods, and without its event a charge is not kept once."""
    event = placed(db)
    charged(psp, event)
    db.execute(change)
    one.look()
    assert one._told == {event.order_id: why}
    assert told(db, event)[1] == "pending"


def test_an_event_that_only_parking_knows(
    db: psycopg.Connection, settings: ReconcileSettings, psp: Gateway, one: Reconciler
) -> None:
    """When the outbox has let an event go, the one that the group has parked first is taken, and no other group's."""
    event = placed(db)
    charged(psp, event)
    park = "insert into parked_events (consumer_group, order_id, event_id, origin) values (%s, %s, %s, '[]')"
    for group, event_id in (("here.inventory", uuid4()), (GROUP, event.event_id), (GROUP, uuid4())):
        db.execute(
            "insert into parked_orders values (%s, %s, 5, null, '') on conflict do nothing", [group, event.order_id]
        )
        db.execute(park, [group, event.order_id, event_id])
    db.execute("delete from outbox")
    one.look()
    assert told(db, event)[:2] == ("charged", "confirmed")
    delivered(settings, event)
    assert len(db.execute("select from payments").fetchall()) == 1


def test_servers_that_are_away(db: psycopg.Connection, gateway: Worker, psp: Gateway, one: Reconciler) -> None:
    """A gateway that does not answer says nothing about a charge: the order is looked at again."""
    event = placed(db)
    charged(psp, event)
    gateway.ended()
    with pytest.raises(Unavailable, match="The gateway at"):
        one.look()
    assert told(db, event) == NOTHING


def test_a_gateway_that_does_not_understand(
    db: psycopg.Connection, settings: ReconcileSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it answers then says nothing about the charge, and is no reason to end."""
    event = placed(db)
    monkeypatch.setenv("GATEWAY_URL", f"{settings.gateway_url}/elsewhere")
    one = Reconciler(settings)
    with closing(one._payment.gateway), closing(one._database):
        one.look()
    assert "refused: 404" in one._told[event.order_id]
    assert told(db, event) == NOTHING


def test_as_a_worker(db: psycopg.Connection, psp: Gateway, start: Start, settings: ReconcileSettings) -> None:
    """It goes on until it is asked to end."""
    env = {name.upper(): value for name, value in settings.model_dump().items()}
    worker = start("reconcile", **env | {"RECONCILE_INTERVAL_S": 0.05})
    for event in (placed(db), placed(db)):
        charged(psp, event)
        until(partial(confirmed, db, event))
    assert worker.ended() == 0
    assert worker.log.count("was charged: told by the gateway") == 2
