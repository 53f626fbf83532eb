"""The customer's page over HTTP, with a real API and a real Postgres behind it; no browser."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest

from tests.pipeline.customers import (
    KEY,
    MERGING,
    MUG,
    OFFER,
    ORDER,
    Stream,
    Visits,
    customer,
    looks,
    stored,
)
from tests.pipeline.workers import Worker, free_port

if TYPE_CHECKING:
    import psycopg


ORDER_ID = "4a71bd26-d556-4924-87ae-f144a7ab8854"


def test_an_order_is_pending_at_once(visit: Visits, shop: psycopg.Connection) -> None:
    """Without JavaScript the page comes again with the order in it, whose price is the shop's; the form is for more."""
    browser = visit()
    page = browser.post("/orders", data=MUG, follow_redirects=True)
    assert (page.status_code, page.url.path, looks(page.text)) == (200, "/", ["pending"])
    assert "Mug</h3>" in page.text
    assert "25.80 EUR" in page.text
    assert KEY not in page.text
    assert stored(shop) == [("mug", 2, 2580, "EUR")]


def test_an_order_is_merged_into_the_page(visit: Visits) -> None:
    """With JavaScript the answer is the order's card, and says which question it is the answer to."""
    answer = visit().post("/orders", data=MUG, headers=MERGING)
    assert answer.status_code == 200
    assert json.loads(answer.headers["HX-Trigger-After-Swap"]) == {"answered": KEY}
    assert answer.text.startswith('<li id="order-')
    assert looks(answer.text) == ["pending"]


def test_pressed_twice_it_is_one_order(visit: Visits, shop: psycopg.Connection) -> None:
    """Whoever sends the same form again is shown the same order."""
    browser = visit()
    first, second = (browser.post("/orders", data=MUG, headers=MERGING) for _ in range(2))
    assert first.text == second.text
    assert len(stored(shop)) == 1


@pytest.mark.parametrize("headers", [{}, MERGING], ids=["plain", "merging"])
@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("quantity", value) for value in ("none", "0", "-1", "", "1.5", "²", "2147483648", "2000000000", "9" * 5000)),
        *(("offer", value) for value in ("1290 EUR yacht", "1290 EUR", "", "<b>", "1 EUR mug", "1290 USD mug")),
    ],
)
def test_what_is_wrong_is_said_beside_the_field(
    visit: Visits, shop: psycopg.Connection, field: str, value: str, headers: dict[str, str]
) -> None:
    """Nothing is stored, what was typed is still there, and another attempt is another order."""
    browser = visit()
    answer = browser.post("/orders", data=MUG | {field: value}, headers=headers)
    assert answer.status_code == 422
    assert f'aria-describedby="{field}-amiss"' in answer.text
    assert re.search(rf'id="{field}-amiss">[^<]+<', answer.text)
    assert KEY not in answer.text
    assert "<b>" not in answer.text
    assert stored(shop) == []


def test_a_key_that_stands_for_another_order(visit: Visits, shop: psycopg.Connection) -> None:
    """An old page that is sent again with something else is told so, and gets a form for that."""
    browser = visit()
    browser.post("/orders", data=MUG)
    answer = browser.post("/orders", data=MUG | {"quantity": "3"})
    assert answer.status_code == 422
    assert 'role="alert">You have ordered this already' in answer.text
    assert KEY not in answer.text
    assert len(stored(shop)) == 1


def test_nobody_knows(visit: Visits, shop: psycopg.Connection) -> None:
    """No answer from the API is said to be none, also when the page is opened again; asked again it is one order."""
    cut_off = visit(API_URL=f"http://127.0.0.1:{free_port()}")
    for answer in (cut_off.post("/orders", data=MUG, headers=MERGING), cut_off.post("/orders", data=MUG)):
        assert (answer.status_code, looks(answer.text)[:1]) == (503, ["unknown"])
    page = cut_off.get("/").text
    assert f'id="ask-{KEY}"' in page
    assert looks(page) == ["unknown"]
    assert stored(shop) == []

    well = visit()
    well.cookies = cut_off.cookies
    page = well.post("/orders", data=MUG, follow_redirects=True).text
    assert looks(page) == ["pending"]
    assert looks(well.get("/").text) == ["pending"]
    assert len(stored(shop)) == 1


@pytest.mark.parametrize(("age_s", "look"), [(1, "pending"), (3600, "late")])
def test_an_order_that_nobody_lists_does_not_vanish(visit: Visits, age_s: float, look: str) -> None:
    """An order that was accepted is shown also where the database does not have it yet; if that lasts, it is said."""
    browser, order = visit(), str(uuid4())
    browser.cookies.set(f"order-{order}", f"offer={OFFER.replace(' ', '+')}&quantity=2&at={int(time.time() - age_s)}")
    for path in ("/", "/orders"):
        page = browser.get(path).text
        assert f'id="order-{order}"' in page
        assert looks(page)[0] == look
        assert "Mug</h3>" in page


def test_what_is_remembered_is_bounded(visit: Visits) -> None:
    """A browser keeps the latest orders for a while, and not all that there ever were."""
    browser = visit()
    for number in range(25):
        browser.post("/orders", data=MUG | {"key": f"{number:032x}"}, headers=MERGING)
    assert sum(name.startswith("order-") for name in browser.cookies) == 20
    assert looks(browser.get("/orders").text) == ["pending"] * 20


@pytest.mark.parametrize(
    "cookie",
    ["order-x=1", f"order-{ORDER_ID}=quantity=x&at=y", f"order-{ORDER_ID}=", f"ask-{KEY}=%00<b>", "customer=%00"],
)
def test_a_browser_that_keeps_nonsense(visit: Visits, cookie: str) -> None:
    """Cookies are input, too: nonsense is passed over."""
    browser = visit()
    page = browser.get("/", headers={"Cookie": cookie})
    assert page.status_code == 200
    assert "<b>" not in page.text


@pytest.mark.parametrize(
    ("known", "look", "text"),
    [
        (("pending", None, None, 1), "pending", "working on it"),
        (("pending", "charged", None, 1), "pending", "Paid"),
        (("pending", None, "reserved", 1), "pending", "Goods reserved"),
        (("pending", "charged", None, 3600), "late", "takes longer than it should"),
        (("confirmed", "charged", "reserved", 3600), "confirmed", "It is paid"),
        (("failed", "declined", "reserved", 1), "failed", "Nothing was charged"),
        (("failed", "charged", "refused", 1), "failed", "is being given back"),
    ],
)
def test_what_a_customer_is_told(
    visit: Visits, shop: psycopg.Connection, known: tuple[object, ...], look: str, text: str
) -> None:
    """Each state has its words, and is only that of the order."""
    browser = visit()
    shop.execute(ORDER, [str(uuid4()), customer(browser), *known])
    [answer] = [browser.get("/orders").text]
    assert looks(answer) == [look]
    assert text in answer


def test_what_came_after(visit: Visits, shop: psycopg.Connection) -> None:
    """That money was given back, and that somebody had to ask how a payment went, is said."""
    browser, order = visit(), str(uuid4())
    shop.execute(ORDER, [order, customer(browser), "failed", "charged", "refused", 1])
    shop.execute("insert into refunds (key, order_id, amount, currency) values ('k', %s, 2580, 'EUR')", [order])
    shop.execute("insert into reconciliations (order_id, found) values (%s, 'charged')", [order])
    answer = browser.get("/orders").text
    assert "Your money was given back" in answer
    assert "we asked the payment service" in answer


def test_others_orders_are_not_shown(visit: Visits, shop: psycopg.Connection) -> None:
    """Each customer sees their own."""
    browser = visit()
    shop.execute(ORDER, [str(uuid4()), "somebody", "pending", None, None, 1])
    assert customer(browser) != "somebody"
    assert looks(browser.get("/orders").text) == []


def test_the_process_is_well(visit: Visits) -> None:
    """That servers are away does not make the page ill: it has something to say without them."""
    nowhere = free_port()
    browser = visit(DATABASE_URL=f"postgresql://x@127.0.0.1:{nowhere}/x", API_URL=f"http://127.0.0.1:{nowhere}")
    answer = browser.get("/healthz")
    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


def test_changes_are_told(visit: Visits, shop: psycopg.Connection) -> None:
    """Who connects is told everything, then what changes; who comes back and knows all that, only what is new."""
    browser, order = visit(), str(uuid4())
    shop.execute(ORDER, [order, customer(browser), "pending", None, None, 1])
    stream = Stream(browser)
    assert looks(stream.next()[0]) == ["pending"]
    shop.execute("update orders set payment = 'charged'")
    assert "Paid" in stream.next()[0]
    shop.execute("update orders set stock = 'reserved', state = 'confirmed'")
    card, knows = stream.next()
    assert looks(card) == ["confirmed"]
    stream.close()

    informed = Stream(browser, knows)
    other = str(uuid4())
    browser.post("/orders", data=MUG | {"key": uuid4().hex})
    card, _ = informed.next()
    assert looks(card) == ["pending"]
    informed.close()

    shop.execute(ORDER, [other, browser.cookies["customer"], "pending", None, None, 1])
    uninformed = Stream(browser, knows)
    assert sorted(looks(uninformed.next()[0])) == ["confirmed", "pending", "pending"]
    uninformed.close()


def test_what_is_late_is_told(visit: Visits, shop: psycopg.Connection) -> None:
    """That an order is not confirmed in time is told although nothing has happened."""
    browser = visit(OVERDUE_S="0.5")
    shop.execute(ORDER, [str(uuid4()), customer(browser), "pending", None, None, 0])
    stream = Stream(browser)
    assert looks(stream.next()[0]) == ["pending"]
    assert looks(stream.next()[0]) == ["late"]
    stream.close()


NEWS = "update goods set price = 1390 where sku = 'mug'"
LEFT = "delete from goods where sku = 'mug'"


@pytest.mark.parametrize("headers", [{}, MERGING], ids=["plain", "merging"])
def test_the_price_has_changed(visit: Visits, shop: psycopg.Connection, headers: dict[str, str]) -> None:
    """Nobody is charged what they were not shown: a price of before is refused, and the new one offered."""
    browser = visit()
    browser.get("/")
    shop.execute(NEWS)
    answer = browser.post("/orders", data=MUG, headers=headers)
    assert answer.status_code == 422
    assert re.search(r'id="offer-amiss">The price has changed: it is 13.90 EUR now', answer.text)
    assert 'value="1390 EUR mug" selected' in answer.text
    assert stored(shop) == []


@pytest.mark.parametrize("change", [NEWS, LEFT], ids=["another price", "left the shop"])
def test_what_may_be_an_order_is_not_refused(visit: Visits, shop: psycopg.Connection, change: str) -> None:
    """Asked again it is that order at that price, whatever the shop offers now; on another page's server, too."""
    cut_off = visit(API_URL=f"http://127.0.0.1:{free_port()}")
    cut_off.post("/orders", data=MUG, headers=MERGING)
    well = visit()
    well.cookies = cut_off.cookies
    placed = well.post("/orders", data=MUG, headers=MERGING)  # is placed, and let us say that nobody has heard so
    shop.execute(change)
    assert looks(cut_off.post("/orders", data=MUG, headers=MERGING).text) == ["unknown"]
    again = visit()
    again.cookies = cut_off.cookies
    answer = again.post("/orders", data=MUG, headers=MERGING)
    assert (answer.status_code, looks(answer.text)) == (200, ["pending"])
    assert re.findall('id="order-.*?"', answer.text) == re.findall('id="order-.*?"', placed.text)
    assert "25.80 EUR" in answer.text
    assert stored(shop) == [("mug", 2, 2580, "EUR")]


@pytest.mark.parametrize("price", [1, 1291])
def test_who_makes_up_a_price(visit: Visits, shop: psycopg.Connection, price: int) -> None:
    """A key that nobody has asked with buys at the shop's price only, whatever else the browser says of it."""
    browser = visit()
    browser.cookies.set(f"ask-{KEY}", f"offer={price}+EUR+mug&quantity=2")
    assert browser.post("/orders", data=MUG | {"offer": f"{price} EUR mug"}).status_code == 422
    assert stored(shop) == []


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "http://shop.example"},
    {"Origin": "null"},
    {"Host": "shop.example", "Origin": "http://shop.example", "Sec-Fetch-Site": "same-origin"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(headers.values()))
def test_another_sites_page(visit: Visits, shop: psycopg.Connection, headers: dict[str, str]) -> None:
    """What another site has a browser send is not ordered, and does not make its customer somebody else."""
    answer = visit().post("/orders", data=MUG, headers=headers)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert stored(shop) == []


@pytest.mark.parametrize("site", ["same-origin", "none", None])
def test_our_own_page(visit: Visits, shop: psycopg.Connection, site: str | None) -> None:
    """What our page sends is ordered, also by a browser that does not say where it comes from otherwise."""
    browser = visit()
    own = {"Origin": str(browser.base_url).rstrip("/")} | ({"Sec-Fetch-Site": site} if site else {})
    assert browser.post("/orders", data=MUG, headers=own).status_code == 303
    assert len(stored(shop)) == 1


def test_what_is_noted_is_shown_whoever_ordered_it(visit: Visits, shop: psycopg.Connection) -> None:
    """An order that was accepted is shown, as it is, also to a browser that has forgotten whose it was."""
    browser = visit()
    browser.post("/orders", data=MUG)
    shop.execute("update orders set payment = 'charged', stock = 'reserved', state = 'confirmed'")
    browser.cookies.delete("customer")
    assert looks(browser.get("/orders").text) == ["confirmed"]


def test_what_is_said_once_is_not_wiped_off(visit: Visits) -> None:
    """Without JavaScript a page with an open end comes again by itself, but not one that says what is wrong."""
    browser = visit()
    browser.post("/orders", data=MUG)
    assert 'http-equiv="refresh"' in browser.get("/").text
    wrong = browser.post("/orders", data=MUG | {"key": "f" * 32, "quantity": "none"})
    assert (wrong.status_code, looks(wrong.text)) == (422, ["pending"])
    assert 'http-equiv="refresh"' not in wrong.text


def test_that_the_api_is_away_is_logged(visit: Visits, api: Worker) -> None:
    """Operators are told that customers are told nothing, and when that is over."""
    port = free_port()
    browser = visit(API_URL=f"http://127.0.0.1:{port}")
    browser.post("/orders", data=MUG)
    assert visit.worker.said(f"The API at http://127.0.0.1:{port}: .*Customers are told that nobody knows")
    assert api.port != port


def test_only_the_latest_are_shown(visit: Visits, shop: psycopg.Connection) -> None:
    """Where there may be more orders than are listed, that is said."""
    browser = visit()
    for number in range(20):
        assert "Shown are your" not in browser.get("/").text
        shop.execute(ORDER, [str(uuid4()), browser.cookies["customer"], "pending", None, None, number])
    assert "Shown are your 20 latest orders." in browser.get("/").text
