"""The customer's page in a real browser: nothing is shown that the server has not said, and nothing vanishes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from playwright.sync_api import BrowserContext, expect

from tests.pipeline.customers import ORDER, Line
from tests.pipeline.workers import Start, Worker, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from playwright.sync_api import Browser, Page, Route

    from chaos import Lane, Session

    Open = Callable[..., Page]

WIDE, NARROW = 1280, 400
PATIENCE_MS = 20_000
LOST = ("Failed to load resource", "htmx:afterRequest", "htmx:sendError", "[object Event]")  # of a connection
KNOWN = [
    ("pending", "charged", None, 1),
    ("pending", "charged", None, 60),
    ("confirmed", "charged", "reserved", 60),
    ("failed", "declined", "reserved", 60),
    ("failed", "charged", "refused", 60),
]
AGAIN = """
    const again = () => setTimeout(() => document.getElementById("ask").requestSubmit(), 100);
    document.body.addEventListener("answered", again, { once: true });
"""
CONFIRM = "update orders set payment = 'charged', stock = 'reserved', state = 'confirmed'"


@pytest.fixture
def shop(db: psycopg.Connection) -> psycopg.Connection:
    """Something to buy."""
    db.execute("truncate goods, refunds, reconciliations")
    db.execute("insert into goods values ('mug', 'Mug', 1290, 'EUR'), ('pot', 'Coffee pot', 5000, 'EUR')")
    return db


class Served:
    """The page's server, which can be stopped and started again where it was."""

    def __init__(self, start: Start, lane: Lane, api_port: object, **env: object) -> None:
        self._port, self._start = free_port(), start
        self.url = f"http://127.0.0.1:{self._port}/"
        self._env = {"DATABASE_URL": lane.postgres, "API_URL": f"http://127.0.0.1:{api_port}", **env}
        self.start()

    def start(self) -> None:
        """Have it listen."""
        self._worker = self._start("display", PORT=self._port, **self._env).listening()

    def stop(self) -> None:
        """Have it end."""
        assert self._worker.ended() == 0


@pytest.fixture
def served(start: Start, lane: Lane, api: Worker) -> Served:
    """Where the page is."""
    return Served(start, lane, api.port)


@pytest.fixture
def visit(browser: Browser, served: Served, shop: psycopg.Connection) -> Iterator[Open]:  # noqa: ARG001 - goods
    """Opens windows of one customer. In the end there was no error but of requests that a test made fail."""
    contexts, errors = list[BrowserContext](), list[str]()

    def come(*, width: int = WIDE, at: str = served.url, **settings: object) -> Page:
        if settings or not contexts:
            contexts.append(browser.new_context(**settings))  # type: ignore[arg-type]
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(at)
        return page

    yield come
    for context in contexts:
        context.close()
    assert [error for error in errors if not error.startswith(LOST)] == []


def cards(page: Page, look: str = "") -> list[str]:
    """What kinds of cards there are, after the first has come to look so."""
    if look:
        expect(page.locator("#orders > .card").first).to_have_class(f"card {look}", timeout=PATIENCE_MS)
    return [str(card.get_attribute("class")).removeprefix("card ") for card in page.locator("#orders > .card").all()]


def count(db: psycopg.Connection) -> int:
    """How many orders there are."""
    [(number,)] = db.execute("select count(*) from orders").fetchall()
    return int(number)


def deliver(route: Route) -> None:
    """Have a question arrive whose answer is lost, with the cookies that are in it."""
    page = route.request.frame.page
    cookies = "; ".join(f"{one['name']}={one['value']}" for one in page.context.cookies())
    headers = {**route.request.headers, "cookie": cookies}
    httpx.post(route.request.url, content=route.request.post_data, headers=headers).raise_for_status()


def test_pending_then_confirmed(visit: Open, shop: psycopg.Connection) -> None:
    """An order is pending as soon as it is accepted, is confirmed when it is, and the form is for another."""
    page = visit()
    expect(page.get_by_text("You have not ordered anything yet.")).to_be_visible()
    page.get_by_label("What").select_option("5000 EUR pot")
    page.get_by_label("How many").fill("3")
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    expect(page.get_by_role("heading", name="3 × Coffee pot")).to_be_visible()  # noqa: RUF001 - as it is written
    expect(page.get_by_text("You have not ordered anything yet.")).not_to_be_visible()
    shop.execute(CONFIRM)
    assert cards(page, "confirmed") == ["confirmed"]
    expect(page.locator("#said")).to_have_text("Your order of 3 × Coffee pot is confirmed.")  # noqa: RUF001
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending", "confirmed"]
    assert count(shop) == 2


@pytest.mark.parametrize("how", ["clicked", "sent as soon as it is answered", "held"])
def test_a_double_click_is_one_order(visit: Open, shop: psycopg.Connection, how: str) -> None:
    """Whoever clicks twice, presses Enter twice or does not let go has ordered once, and may order again then."""
    page = visit()
    button = page.get_by_role("button", name="Order")
    if how == "clicked":
        button.dblclick(delay=30)
    elif how == "held":
        page.get_by_label("How many").focus()
        page.keyboard.down("Enter")
        expect(page.locator("#orders > .pending")).to_be_visible()
        for _ in range(30):
            page.wait_for_timeout(33)
            page.keyboard.down("Enter")
    else:
        page.evaluate(AGAIN)
        button.click()
    assert cards(page, "pending") == ["pending"]
    button.click()
    expect(page.locator("#orders > .card")).to_have_count(2)
    assert count(shop) == 2


@pytest.mark.parametrize("arrives", [False, True], ids=["request lost", "reply lost"])
def test_no_answer(visit: Open, shop: psycopg.Connection, arrives: bool) -> None:  # noqa: FBT001 - pytest passes it
    """Where there is no answer that is shown, also on a page that is opened anew; asked again it is one order."""
    page, asked = visit(), list[str]()

    def lose(route: Route) -> None:
        asked.append(str(route.request.post_data))
        if arrives:
            deliver(route)
        route.abort()

    page.route("**/orders", lose)
    page.get_by_role("button", name="Order").click()
    expect(page.locator(".unknown").get_by_role("heading", name="1 × Coffee pot")).to_be_visible()  # noqa: RUF001
    if not arrives:  # or the stream has more to say at once
        expect(page.locator("#said")).to_contain_text("Your order of 1 × Coffee pot was not answered")  # noqa: RUF001
    page.reload()
    assert "unknown" in cards(page)
    page.unroute("**/orders")
    expect(page.locator(".unknown")).to_have_count(0, timeout=PATIENCE_MS)
    assert cards(page) == ["pending"]
    assert count(shop) == 1
    page.reload()
    assert cards(page) == ["pending"]


@pytest.mark.parametrize("status", [500, 502, 404, 200])
def test_somebody_else_answers(visit: Open, shop: psycopg.Connection, status: int) -> None:
    """An answer that is not ours is none, whatever it says: that is shown, and asked again until it is."""
    page = visit()

    def answer(route: Route) -> None:
        deliver(route)
        route.fulfill(status=status, body="<html>I am a proxy.</html>")

    page.route("**/orders", answer)
    page.get_by_role("button", name="Order").click()
    expect(page.locator(".unknown")).to_be_visible()
    page.unroute("**/orders")
    expect(page.locator(".unknown")).to_have_count(0, timeout=PATIENCE_MS)
    assert cards(page) == ["pending"]
    assert count(shop) == 1


@pytest.mark.parametrize("arrives", [False, True], ids=["has not arrived", "has arrived"])
def test_the_page_is_closed_before_the_answer(visit: Open, shop: psycopg.Connection, arrives: bool) -> None:  # noqa: FBT001
    """Whoever loads the page anew while it asks is told that nobody knows, and has one order in the end."""
    page, held = visit(), list[Any]()

    def hold(route: Route) -> None:
        if arrives:
            deliver(route)
        held.append(route)

    page.route("**/orders", hold, times=1)
    page.get_by_role("button", name="Order").click()
    while not held:
        page.wait_for_timeout(10)
    page.route("**/orders", lambda route: route.abort())
    page.reload()
    assert cards(page, "unknown")[:1] == ["unknown"]
    page.unroute("**/orders")
    expect(page.locator(".unknown")).to_have_count(0, timeout=PATIENCE_MS)
    assert cards(page) == ["pending"]
    assert count(shop) == 1


def test_what_nobody_answered_is_refused(visit: Open, served: Served, shop: psycopg.Connection) -> None:
    """A question that is certainly no order is refused when it is asked again, and the form says why."""
    page = visit()
    told = {"name": f"ask-{'0' * 32}", "value": "offer=1290+EUR+yacht&quantity=1", "url": served.url}
    page.context.add_cookies([told])  # type: ignore[list-item]
    page.reload()
    expect(page.locator("#offer-amiss")).to_have_text("This is not in our shop.")
    expect(page.locator(".card")).to_have_count(0)
    assert count(shop) == 0


def test_the_price_has_changed(visit: Open, shop: psycopg.Connection) -> None:
    """Nobody is charged what they were not shown: the new price is, and can be accepted."""
    page = visit()
    shop.execute("update goods set price = 6000 where sku = 'pot'")
    page.get_by_label("How many").fill("3")
    page.get_by_role("button", name="Order").click()
    expect(page.locator("#offer-amiss")).to_have_text("The price has changed: it is 60.00 EUR now.")
    assert count(shop) == 0
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    expect(page.get_by_text("180.00 EUR")).to_be_visible()


def test_another_sites_page(visit: Open, served: Served, shop: psycopg.Connection) -> None:
    """A form of another site, sent in a customer's name, is no order, and takes none away."""
    page = visit()
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    fields = "<input name=offer value='5000 EUR pot'><input name=quantity value=1>"
    form = f"<form method=post action='{served.url}orders'>{fields}<button>Win</button></form>"
    page.route("http://shop.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    page.goto("http://shop.example/")
    page.get_by_role("button", name="Win").click()
    expect(page.get_by_text("this came from another site")).to_be_visible()
    page.goto(served.url)
    assert cards(page) == ["pending"]
    assert count(shop) == 1


def test_postgres_is_away(visit: Open, start: Start, lane: Lane, api: Worker, shop: psycopg.Connection) -> None:
    """That orders cannot be read is said on pages that are open or opened then; how they are, when it is over."""
    line = Line(lane.postgres)
    served = Served(start, lane, api.port, DATABASE_URL=line.url)
    page = visit(at=served.url)
    none, unread = (
        page.get_by_text("You have not ordered"),
        page.get_by_text("We cannot read your orders at the moment"),
    )
    expect(none).to_be_visible()
    line.cut()
    expect(unread).to_be_visible(timeout=PATIENCE_MS)
    expect(none).not_to_be_visible()
    page.reload()
    expect(unread).to_be_visible()
    expect(none).not_to_be_visible()
    line.mend()
    expect(unread).not_to_be_visible(timeout=PATIENCE_MS)
    expect(none).to_be_visible()
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    line.cut()
    shop.execute(CONFIRM)
    page.reload()
    assert cards(page) == ["accepted"]
    line.mend()
    assert cards(page, "confirmed") == ["confirmed"]


def test_the_api_is_away(visit: Open, start: Start, lane: Lane, shop: psycopg.Connection) -> None:
    """Without the API the page says that it does not know, and asks until it does."""
    port = free_port()
    page = visit(at=Served(start, lane, port).url)
    page.get_by_role("button", name="Order").click()
    assert cards(page, "unknown") == ["unknown"]
    start("api", DATABASE_URL=lane.postgres, PORT=port)
    expect(page.locator(".unknown")).to_have_count(0, timeout=PATIENCE_MS)
    assert cards(page) == ["pending"]
    assert count(shop) == 1


def test_a_list_that_comes_late(visit: Open, shop: psycopg.Connection) -> None:
    """An answer from before an order, and from before its end, takes nothing back."""
    page, held = visit(), list[Any]()
    page.route("**/orders", lambda route: held.append((route, route.fetch())), times=1)
    page.evaluate("htmx.trigger('#orders', 'refetch')")
    while not held:
        page.wait_for_timeout(10)
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    shop.execute(CONFIRM)
    assert cards(page, "confirmed") == ["confirmed"]
    [(route, answer)] = held
    assert "order-" not in answer.text()
    with page.expect_event("requestfinished"):
        route.fulfill(response=answer)
    assert cards(page) == ["confirmed"]


def test_the_stream_is_cut(visit: Open, served: Served, shop: psycopg.Connection) -> None:
    """That the page is not live is said; what has happened meanwhile is shown when it is again."""
    page = visit()
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    served.stop()
    expect(page.get_by_text("Live updates are interrupted.")).to_be_visible()
    shop.execute(CONFIRM)
    served.start()
    assert cards(page, "confirmed") == ["confirmed"]
    expect(page.get_by_text("Live updates are interrupted.")).not_to_be_visible()


def test_two_windows(visit: Open, shop: psycopg.Connection) -> None:
    """What is ordered in one window of a customer is shown in the other."""
    one, other = visit(), visit()
    one.get_by_role("button", name="Order").click()
    assert cards(other, "pending") == ["pending"]
    shop.execute(CONFIRM)
    assert cards(one, "confirmed") == cards(other, "confirmed") == ["confirmed"]


def test_late_is_said(visit: Open, start: Start, lane: Lane, api: Worker, shop: psycopg.Connection) -> None:
    """An order that is not confirmed in time is one of which we say so, until it is."""
    page = visit(at=Served(start, lane, api.port, OVERDUE_S=3).url)
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    assert cards(page, "late") == ["late"]
    shop.execute(CONFIRM)
    assert cards(page, "confirmed") == ["confirmed"]


def test_what_is_wrong(visit: Open, shop: psycopg.Connection) -> None:
    """What is wrong with a field is said beside it, what was typed is still there, and it can be mended."""
    page = visit()
    page.get_by_label("How many").fill("many")
    page.get_by_role("button", name="Order").click()
    expect(page.locator("#quantity-amiss")).to_be_visible()
    expect(page.get_by_label("How many")).to_have_value("many")
    assert count(shop) == 0
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    expect(page.locator("#quantity-amiss")).to_have_count(0)


def test_without_javascript(visit: Open, shop: psycopg.Connection) -> None:
    """The page works without scripts: it comes anew."""
    page = visit(java_script_enabled=False)
    page.get_by_label("How many").fill("2")
    page.get_by_role("button", name="Order").click()
    assert cards(page, "pending") == ["pending"]
    shop.execute(CONFIRM)
    assert cards(page, "confirmed") == ["confirmed"]  # by itself: it comes again every few seconds


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_everybody_can_use_it(
    visit: Open, shop: psycopg.Connection, onecharge: Session, scheme: str, width: int
) -> None:
    """With cards of every kind, and something wrong in the form: nothing that axe finds, nothing beside the screen."""
    page = visit(color_scheme=scheme, width=width)
    [customer] = [one["value"] for one in page.context.cookies() if one["name"] == "customer"]
    for known in KNOWN:
        shop.execute(ORDER, [str(uuid4()), customer, *known])
    page.reload()
    page.route(  # for good: a question that nobody answers is asked again after 300 ms, and again
        "**/orders", lambda route: route.abort() if "many" not in str(route.request.post_data) else route.continue_()
    )
    page.get_by_role("button", name="Order").click()
    expect(page.locator(".unknown")).to_be_visible()
    page.get_by_label("How many").fill("many")
    page.get_by_role("button", name="Order").click()
    expect(page.locator("#quantity-amiss")).to_be_visible()
    assert set(cards(page)) == {"unknown", "pending", "late", "confirmed", "failed"}
    page.screenshot(path=onecharge.output / f"page-{scheme}-{width}.png", full_page=True)
    assert Axe().run(page).response["violations"] == []
    assert page.evaluate("document.documentElement.scrollWidth") == width
