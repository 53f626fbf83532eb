"""The inventory group's decisions: first come, first served, never below zero, and one outcome for each order."""

from __future__ import annotations

from uuid import uuid4

import psycopg
import pytest

from pipeline.events import Failed, ItemOrdered
from pipeline.process.inventory import Inventory
from pipeline.process.orders import PAYMENT, Unseen, settle

ORDER = "insert into orders values (%s, 'c-1', 'sku-1', 1, 1999, 'EUR')"


@pytest.fixture
def shop(db: psycopg.Connection) -> psycopg.Connection:
    """Three of one thing, ten of another."""
    db.execute("truncate stock, reservations")
    db.execute("insert into stock values ('scarce', 3), ('plenty', 10)")
    return db


def ordered(db: psycopg.Connection, order_id: str, sku: str, quantity: int) -> ItemOrdered:
    """An order that is new, and its event."""
    db.execute(ORDER, [order_id])
    return ItemOrdered(event_id=uuid4(), order_id=order_id, seq=1, sku=sku, quantity=quantity)


def failed(order_id: str) -> Failed:
    """What is said of an order that has failed."""
    return Failed(event_id=uuid4(), order_id=order_id, seq=2, customer_id="c-1")


def states(db: psycopg.Connection) -> dict[str, str]:
    """What was decided, by order."""
    return dict(db.execute("select order_id, state from reservations").fetchall())


def left(db: psycopg.Connection) -> dict[str, int]:
    """What there is."""
    return dict(db.execute("select sku, available from stock").fetchall())


def outcomes(db: psycopg.Connection) -> list[tuple[str, str, int]]:
    """The events that followed: order, type and sequence, as the topic will have them."""
    query = """
        select payload ->> 'order_id', payload ->> 'type', (payload ->> 'seq')::int from outbox
        where (order_id, type, seq, event_id::text) =
            (payload ->> 'order_id', payload ->> 'type', (payload ->> 'seq')::int, payload ->> 'event_id')
        order by 1
    """
    return db.execute(query).fetchall()


@pytest.mark.parametrize("together", [True, False])
def test_who_asks_first_is_served_first(shop: psycopg.Connection, together: bool) -> None:  # noqa: FBT001
    """As if orders came one by one, also where they come together; one that is too large does not block a smaller."""
    wanted = [
        ("o-1", "scarce", 2),
        ("o-2", "scarce", 2),
        ("o-3", "scarce", 1),
        ("o-4", "none", 1),
        ("o-5", "plenty", 9),
    ]
    events = [ordered(shop, *one) for one in wanted]
    for batch in [events] if together else [[event] for event in events]:
        Inventory().effect(shop, batch)
    assert states(shop) == dict(
        zip([one[0] for one in wanted], ["reserved", "refused", "reserved", "refused", "reserved"], strict=True)
    )
    assert left(shop) == {"scarce": 0, "plenty": 1}


def test_what_failed_gives_back_what_it_had(shop: psycopg.Connection) -> None:
    """Once, and nothing where nothing was reserved; also where an order was placed and failed at one time."""
    Inventory().effect(shop, [ordered(shop, "o-1", "scarce", 2), ordered(shop, "o-2", "scarce", 2)])
    Inventory().effect(shop, [failed("o-1"), failed("o-2"), ordered(shop, "o-3", "plenty", 4), failed("o-3")])
    Inventory().effect(shop, [failed("o-1"), failed("nobody's")])
    assert states(shop) == {"o-1": "released", "o-2": "refused", "o-3": "released"}
    assert left(shop) == {"scarce": 3, "plenty": 10}


def test_who_completes_the_picture_writes_the_outcome(shop: psycopg.Connection) -> None:
    """Not before both are known, whichever is first, once, and as the order's next event."""
    events = [ordered(shop, "o-1", "plenty", 1), ordered(shop, "o-2", "scarce", 9), ordered(shop, "o-3", "plenty", 1)]
    settle(shop, PAYMENT, ["o-3", "o-2"], ["declined", "charged"])
    assert outcomes(shop) == []
    Inventory().effect(shop, events)
    assert outcomes(shop) == [("o-2", "order.failed", 2), ("o-3", "order.failed", 2)]
    settle(shop, PAYMENT, ["o-1"], ["charged"])
    settle(shop, PAYMENT, ["o-1", "o-2"], ["charged", "charged"])
    assert outcomes(shop) == [("o-1", "order.confirmed", 2), ("o-2", "order.failed", 2), ("o-3", "order.failed", 2)]
    assert dict(shop.execute("select order_id, state from orders").fetchall()) == {
        "o-1": "confirmed",
        "o-2": "failed",
        "o-3": "failed",
    }


def test_an_order_that_cannot_be_seen_yet(shop: psycopg.Connection) -> None:
    """Is an error, and nothing is decided, so that the event is tried again: the log may bring it before its commit."""
    event = ItemOrdered(event_id=uuid4(), order_id="o-1", seq=1, sku="plenty", quantity=1)
    with psycopg.connect(shop.info.dsn) as writer:
        writer.execute(ORDER, ["o-1"])
        with pytest.raises(Unseen, match="0 of 1 orders"), shop.transaction():
            Inventory().effect(shop, [event])
        assert states(shop) == {}
    Inventory().effect(shop, [event])
    assert states(shop) == {"o-1": "reserved"}
