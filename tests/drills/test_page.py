"""What a customer is shown is true, whatever is broken behind the page or between the two.

In a real browser. Its witness (`tests.fix_page`) keeps every state that any card was shown in. What is broken is broken
by the workloads, each of which sees to it that it was: if not it raises, and nothing is proven.
"""

from __future__ import annotations

import signal
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.request import Request, urlopen

import pytest

from chaos.history import Asked, Replied
from chaos.invariants import Ledger
from pipeline.display import page
from pipeline.process import payment
from tests.fix_page import API_TIMEOUT_S, AT_ONCE_S, paged_shop
from tests.twins import paging, payment_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import APIResponse, Browser, Route

    from chaos import Run, Session
    from tests.fix_page import Customer

    Visit = Callable[[], Customer]
    Workload = Callable[[Run, Visit], object]

pytestmark = pytest.mark.drills

FAULTS = ("crash-before", "crash-after", "lose-request", "lose-reply")
SOON_S = 1.5  # after so long orders are late, where that is to be seen
PATIENCE_S = 3.0  # with twins
A_MINUTE_AGO = "update orders set created_at = created_at - interval '1 minute' where order_id = %s"
AN_HOUR_AGO = "update orders set created_at = created_at - interval '1 hour' where order_id = %s"
BREAK = "insert into broken (what) values (%s)"
MEND = "update broken set mended = true"
CONFIRMED = "select from orders where order_id = %s and state = 'confirmed'"
GIVEN_UP = "select from parked_orders where order_id = %s and next_attempt_at is null"
READ_AGAIN = "htmx.trigger('#orders', 'refetch')"
TAKEN_IN = "!document.getElementById('orders').matches('.htmx-request')"


def one_order(_: Run, visit: Visit) -> None:
    """Order, and wait for the confirmation."""
    customer = visit()
    customer.order()
    customer.sees("confirmed")


def two_windows(_: Run, visit: Visit) -> None:
    """Order in one window and look at both; then click twice in the other."""
    one, other = visit(), visit()
    one.order()
    for window in (one, other):
        window.sees("confirmed")
    other.order(clicks=2)
    for window in (one, other):
        window.sees("confirmed", "confirmed")


def the_answer_is_lost(_: Run, visit: Visit) -> None:
    """The first answer to the order does not reach the browser."""
    customer = visit()
    lost: list[APIResponse] = []

    def lose(route: Route) -> None:
        if lost or route.request.method != "POST":
            return route.continue_()
        lost.append(route.fetch())
        return route.abort()

    customer.page.route("**/orders", lose)
    with customer.unpublished():
        customer.press()
        customer.page.locator("#orders > .unknown").wait_for()
        customer.picture("unknown")
        order_id = customer.accepted()
    customer.sees("confirmed")
    assert [order_id in answer.text() for answer in lost] == [True]


@contextmanager
def late_list(customer: Customer) -> Iterator[APIResponse]:
    """A list that the page asks for now, and is given when this ends."""
    held: list[tuple[Route, APIResponse]] = []

    def hold(route: Route) -> None:
        if route.request.method == "GET":
            held.append((route, route.fetch()))
        else:
            route.continue_()

    customer.page.route("**/orders", hold)
    customer.page.evaluate(READ_AGAIN)
    customer.until("a list to be asked for", lambda: held)
    [(route, answer)] = held
    yield answer
    with customer.page.expect_event("requestfinished", lambda request: request == route.request):
        route.fulfill(response=answer)
    customer.page.wait_for_function(TAKEN_IN)
    customer.page.unroute("**/orders", hold)


def the_list_is_old(_: Run, visit: Visit) -> None:
    """A list from before the order arrives behind it, and one from before its end behind that."""
    customer = visit()
    with ExitStack() as late:
        with customer.unpublished():
            with late_list(customer) as empty:
                order_id = customer.ask()
            pending = late.enter_context(late_list(customer))
        customer.sees("confirmed")
    customer.sees("confirmed")
    assert order_id not in empty.text()
    assert order_id in pending.text()
    assert "confirmed" not in pending.text()


def the_list_lags(_: Run, visit: Visit) -> None:
    """The page is opened anew, twice, before its list has the order."""
    customer = visit()
    with customer.unpublished():
        order_id = customer.ask()
        assert order_id not in listed(customer)
        customer.page.reload()
        customer.page.reload()
        customer.sees("pending")
    customer.sees("confirmed")
    assert order_id in listed(customer)


def listed(customer: Customer) -> str:
    """The list for somebody who is this customer, and has noted nothing of what was accepted."""
    [name] = [cookie["value"] for cookie in customer.page.context.cookies() if cookie["name"] == "customer"]
    with urlopen(Request(f"{customer.line.url}orders", headers={"Cookie": f"customer={name}"})) as answer:  # noqa: S310 - our own
        return str(answer.read(), "utf-8")


def the_stream_is_cut(_: Run, visit: Visit) -> None:
    """The browser is cut off while the order is confirmed, and then is back."""
    customer = visit()
    line = customer.line
    with customer.unpublished():
        order_id = customer.ask()
        customer.until("the stream to have told of the order", lambda: b"event: order" in line.got)
        line.cut()
        customer.page.get_by_text("interrupted").wait_for()
    customer.knows(CONFIRMED, order_id)
    assert customer.looks() == "pending"
    customer.picture("interrupted")
    line.mend()
    customer.until("the stream to be back", lambda: b"last-event-id: " in line.sent.lower())
    customer.sees("confirmed")


def kafka_hangs(run: Run, visit: Visit) -> None:
    """Kafka does not answer the relay that has the order to publish."""
    customer = visit()
    [kafka] = [process for process in run.lane.supervisor.processes if process.name == "kafka"]
    try:
        with customer.unpublished():
            customer.ask()
            kafka.signal(signal.SIGSTOP)
        customer.until("the relay to wait for Kafka", lambda: unanswered(run))
        customer.shows("pending")
        assert unanswered(run)
    finally:
        kafka.signal(signal.SIGCONT)
    customer.sees("confirmed")


def unanswered(run: Run) -> bool:
    """Whether the wire has seen the order on its way to Kafka, and no answer."""
    answered = {event.number for event in run.history if isinstance(event, Replied)}
    asked = [event for event in run.history if isinstance(event, Asked) and event.number not in answered]
    return any(name.startswith("relay~0/kafka.produce[key-1]") for event in asked for name in event.names)


def a_minute_late(run: Run, visit: Visit) -> None:
    """The confirmation is on its way for longer than it should: so long that the page says so, and then a minute."""
    customer = visit()
    with customer.unpublished():
        order_id = customer.ask()
        customer.sees("late")  # by the clock: nobody has told the page
        run.execute(A_MINUTE_AGO, order_id)
        customer.page.reload()
        customer.sees("late")
        customer.picture("late")
    customer.sees("confirmed")


def lost_for_good(run: Run, visit: Visit) -> None:
    """The confirmation is given up, so nobody would ever tell; after an hour the reconciler asks the gateway."""
    customer = visit()
    with customer.unpublished():
        order_id = customer.ask()
        run.execute(BREAK, order_id)
    customer.knows(GIVEN_UP, order_id)
    customer.sees("late")
    run.execute(AN_HOUR_AGO, order_id)
    customer.sees("confirmed")
    customer.reads("so we asked the payment service")
    customer.picture("reconciled")
    run.execute(MEND)


SHOPS: dict[Workload, dict[str, Any]] = {
    the_list_lags: {"main": paging.lagging},
    a_minute_late: {"overdue_s": SOON_S},
    lost_for_good: {"overdue_s": SOON_S, "lossy": True},
}


def test_every_point_of_api_and_page(onecharge: Session, browser: Browser) -> None:
    """Wherever the two are broken, the customer has one order for each press, and is shown it as it is."""
    with paged_shop(onecharge, browser, one_order, at_once_s=AT_ONCE_S + API_TIMEOUT_S) as system:
        system.sweep(faults=FAULTS, only=["api", "display"]).require_holds()


@pytest.mark.parametrize(
    ("workload", "looks"),
    [
        (two_windows, ["pending", "confirmed"]),
        (the_answer_is_lost, ["pending", "confirmed"]),
        (the_list_is_old, ["pending", "confirmed"]),
        (the_list_lags, ["pending", "confirmed"]),
        (the_stream_is_cut, ["pending", "confirmed"]),
        (kafka_hangs, ["pending", "confirmed"]),
        (a_minute_late, ["pending", "late", "confirmed"]),
        (lost_for_good, ["pending", "late", "confirmed"]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_seen(onecharge: Session, browser: Browser, workload: Workload, looks: list[str]) -> None:
    """Nothing is shown too early, taken back, or vanishes; and each state that an order had is shown, in turn."""
    with paged_shop(onecharge, browser, workload, **SHOPS.get(workload, {})) as system:
        verdict = system.drill()
        verdict.require_holds()
        witness = Ledger(system.lane.files / "page.jsonl", key="order_id")
        for key in verdict.keys:
            assert list(dict.fromkeys(one.field("look") for one in witness.of(key))) == looks


class Twin(NamedTuple):
    """A page with a bug, or what charges behind it, what it is found by, and all that is then said, up to a colon."""

    main: Callable[[], object]
    workload: Workload
    said: set[str]
    schedule: str = ""
    charging: Callable[[], object] = payment.main


TWINS = (
    Twin(
        paging.rekeying,
        one_order,
        {"one order for each press has 2 orders for 1", "told the truth was not seen as confirmed"},
        "display/http.post#1:lose-reply",
    ),
    Twin(
        paging.rekeying,
        the_answer_is_lost,
        {"one order for each press has 2 orders for 1", "told the truth was not seen as confirmed"},
    ),
    Twin(
        paging.doubling,
        two_windows,
        {"one order for each press has 3 orders for 2", "told the truth was not seen as confirmed,confirmed"},
    ),
    Twin(
        paging.backwards,
        the_list_is_old,
        {
            "told the truth was shown in versions that go back",
            "told the truth was not seen as confirmed",
            "told the truth is confirmed, and is not shown so",
        },
    ),
    Twin(
        paging.replacing,
        the_list_is_old,
        {
            "told the truth vanished",
            "told the truth was shown in versions that go back",
            "told the truth was not seen as confirmed",
            "told the truth is confirmed, and is not shown so",
        },
    ),
    Twin(paging.forgetful, the_list_lags, {"told the truth vanished"}),
    Twin(
        paging.unwelcoming,
        the_stream_is_cut,
        {"told the truth was not seen as confirmed", "told the truth is confirmed, and is not shown so"},
    ),
    Twin(
        paging.optimistic,
        kafka_hangs,
        {"told the truth was shown as ended too early", "told the truth was not seen as pending"},
    ),
    Twin(paging.timeless, a_minute_late, {"told the truth was not seen as late"}),
    Twin(
        paging.spinning,
        lost_for_good,
        {
            "told the truth was not seen as confirmed",
            "told the truth was not seen as so we asked the payment service",
            "told the truth is confirmed, and is not shown so",
        },
    ),
    Twin(paging.slow, one_order, {"told the truth was not shown at once"}),
    Twin(
        page.main,
        one_order,
        {
            "one order for each press was charged 2 times",
            "one effect per key has 2 effects",
            "settled up is confirmed, was charged 2 times and refunded 0 times",
        },
        "payment/http.post[key-1]#1:crash-after",
        payment_twins.key_per_attempt,
    ),
)


@pytest.mark.parametrize("twin", TWINS, ids=lambda twin: f"{twin.main.__name__}-{twin.workload.__name__}")
def test_a_twin_is_found(onecharge: Session, browser: Browser, twin: Twin) -> None:
    """A page that is not true is found, by that which is not true of it and nothing else."""
    bugs = {"main": twin.main, "charging": twin.charging, "patience_s": PATIENCE_S}
    shop = SHOPS.get(twin.workload, {}) | bugs
    with paged_shop(onecharge, browser, twin.workload, **shop) as system:
        verdict = system.drill(twin.schedule)
    said = {f"{violation.invariant} {violation.detail.partition(':')[0]}" for violation in verdict.violations}
    assert (said, verdict.reasons) == (twin.said, []), verdict.story(events=True)
