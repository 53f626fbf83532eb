"""The shop with its customers' page, and customers: a real browser, and a witness of every card that it shows.

The witness keeps a ledger. Of each order it says what was shown, in which version, how soon, and whether it vanished: a
card that was removed, or is not on a page that was opened later. What a customer waited for in vain is in it, too.
"""

from __future__ import annotations

import contextlib
import json
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from playwright.sync_api import TimeoutError  # noqa: A004 - playwright's own

from chaos import System, Worker
from chaos.invariants import Invariant, Ledger, Record, Violation
from chaos.waiting import Deadline, wait_until
from pipeline import reconcile
from pipeline.display import page as display
from pipeline.process import inventory, notification, payment
from pipeline.publish import relay as relays
from pipeline.write import api as orders_api
from tests.fix_browser import Line
from tests.fix_groups import STOCK_UP
from tests.fix_pipeline import SCHEMA
from tests.fix_shop import keep_books
from tests.twins import mendable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from playwright.sync_api import Browser, Page

    from chaos import Lane, Run, Session
    from chaos.workers.process import Process

WITNESS = Path(__file__).with_name("witness.js").read_text(encoding="utf-8")
PATIENCE_S = 20.0
API_TIMEOUT_S = 1
AT_ONCE_S = 2.0  # so soon after the press there is a card, on a busy machine; mostly it is 0.05
PRICED = "insert into goods values (%s, 'Mug', 1999, 'EUR')"
ENDS = {"confirmed", "failed"}
ENDED = "select where not exists (select from orders where order_id = any(%s) and state = 'pending')"
ORDERED = """
    select sku, array_agg(order_id order by created_at) from orders
    where sku in (select sku from orders where order_id = any(%s)) group by sku
"""
OUTCOMES = """
    select order_id, sku, state, (
        select extract(epoch from outbox.created_at)::float8 from outbox
        where outbox.order_id = orders.order_id and type <> 'order.placed'
    ) from orders where order_id = any(%s)
"""
LOOKS = "[...document.querySelectorAll('.card')].map((card) => card.classList[1]).join()"


@dataclass
class Window:
    """What is known of a browser's window."""

    number: int
    cards: set[str] = field(default_factory=set)
    pressed: float | None = None  # and no card has come of that yet
    after_s: float | None = None  # a card has come of it, and none of an order


class Witness:
    """Writes down what browsers show. Windows of one customer have one `who`."""

    def __init__(self, path: Path) -> None:
        self.ledger = Ledger(path, key="order_id")
        self.presses = Counter[str]()  # how many orders each customer wants
        self._path, self._shown, self._windows = path, dict[str, set[str]](), dict[str, list[Window]]()

    def windows(self, who: str) -> int:
        """How many that customer has, numbered from 0."""
        return len(self._windows.get(who, ()))

    def watch(self, page: Page, who: str) -> None:
        """From the next page that this one opens on."""
        shown, windows = self._shown.setdefault(who, set()), self._windows.setdefault(who, [])
        window = Window(len(windows))
        windows.append(window)

        def told(_: object, what: dict[str, Any]) -> None:
            if what["what"] == "pressed":
                window.pressed = what["at"]
            elif what["what"] == "loaded":
                for order_id in shown - {card.removeprefix("order-") for card in what["ids"]}:
                    self.write(order_id, what="vanished", at=what["at"])
            else:
                card(**what)

        def card(*, id: str, kind: str, **more: Any) -> None:  # noqa: A002 - as the page has it
            if f"{kind}-{id}" not in window.cards and window.pressed is not None:
                window.after_s, window.pressed = more["at"] - window.pressed, None
            window.cards.add(f"{kind}-{id}")
            if kind == "order":
                shown.add(id)
                self.write(id, window=window.number, after_s=window.after_s, **more)
                window.after_s = None

        page.expose_binding("witness", told)
        page.add_init_script(WITNESS)

    def write(self, order_id: str, **what: Any) -> None:
        """Keep something about an order."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"order_id": order_id, **what}) + "\n")


class Outcome(NamedTuple):
    """What became of an order."""

    key: str
    who: str
    state: str
    ended: float | None


def told_the_truth(lane: Lane, witness: Witness, at_once_s: float) -> Invariant:
    """A customer's own order does not vanish, is not shown as ended before it is, and on no page goes back.

    Something is shown at once, all that the customer was to see is, and in the end each window shows the order as it
    is. A page that is opened anew may begin behind, where its list lags.
    """

    def check(keys: Sequence[str]) -> list[Violation]:
        return [
            Violation("told the truth", outcome.key, text, tuple(records))
            for outcome in map(Outcome._make, lane.execute(OUTCOMES, [list(keys)]))
            for text, records in lies(outcome, witness, at_once_s)
        ]

    return Invariant("told the truth", check, witness.ledger, final=False)


def lies(outcome: Outcome, witness: Witness, at_once_s: float) -> Iterator[tuple[str, list[Record]]]:
    """What was shown and is not true, with the records that show it. What differs from run to run is behind a colon."""
    records = witness.ledger.of(outcome.key)
    shown, gone, vain = (
        [one for one in records if one.field("what") in what] for what in ({"shown"}, {"gone", "vanished"}, {"in vain"})
    )
    pages, windows = (grouped(shown, by) for by in ("page", "window"))
    if gone:
        yield "vanished", gone
    if early := [
        one for one in shown if one.field("look") in ENDS and (outcome.ended is None or one.field("at") < outcome.ended)
    ]:
        yield "was shown as ended too early", early
    versions = [[one.field("version") for one in page] for page in pages.values()]
    if back := [page for page in versions if page != sorted(page)]:
        yield f"was shown in versions that go back: {back}", shown
    if slow := [one for one in shown if (one.field("after_s") or 0) > at_once_s]:
        yield f"was not shown at once: {slow[0].field('after_s')} s after the press", slow
    for one in vain:
        yield f"was not seen as {one.field('wanted')}: {one.field('seen')}", [one]
    last = [
        windows[number][-1].field("look") if number in windows else None
        for number in range(witness.windows(outcome.who))
    ]
    if set(last) != {outcome.state}:
        yield f"is {outcome.state}, and is not shown so: {last}", shown


def grouped(records: Sequence[Record], by: str) -> dict[Any, list[Record]]:
    """Records by one of their fields."""
    found: dict[Any, list[Record]] = {}
    for record in records:
        found.setdefault(record.field(by), []).append(record)
    return found


def one_order_for_each_press(lane: Lane, witness: Witness, charges: Ledger) -> Invariant:
    """Whoever presses has one order for that, and each of their orders is charged once, whether or not it is shown."""
    name = "one order for each press"

    def check(keys: Sequence[str]) -> list[Violation]:
        found = []
        for who, orders in lane.execute(ORDERED, [list(keys)]):
            records = {order: tuple(record for record in charges.of(order) if record.effect) for order in orders}
            if len(orders) != witness.presses[who]:
                detail = f"has {len(orders)} orders for {witness.presses[who]}"
                found.append(Violation(name, who, detail, sum(records.values(), ())))
            found += [
                Violation(name, order, f"was charged {len(charged)} times", charged)
                for order, charged in records.items()
                if len(charged) != 1
            ]
        return found

    return Invariant(name, check, charges, final=False)


class Customer:
    """A browser window with the shop's page. `page` is playwright's, `line` what all windows reach the shop by.

    `patience_s` is for how long the page may not show what is known.
    """

    def __init__(self, page: Page, line: Line, run: Run, witness: Witness, who: str, *, patience_s: float) -> None:
        self.page, self.line, self.run = page, line, run
        self._witness, self._who, self._patience_s = witness, who, patience_s
        witness.watch(page, who)
        page.set_default_timeout(PATIENCE_S * 1000)
        page.goto(line.url)

    def order(self, *, clicks: int = 1) -> str:
        """Order what the form says, and wait for the order."""
        with self.unpublished():
            return self.ask(clicks)

    def ask(self, clicks: int = 1) -> str:
        """As `order`, where it is `unpublished`."""
        self.press(clicks)
        return self.accepted()

    @contextlib.contextmanager
    def unpublished(self) -> Iterator[None]:
        """Nothing is published in here: no order ends, and points can be named after one that is `accepted`."""
        relay = self.relay
        relay.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            relay.signal(signal.SIGCONT)

    @property
    def relay(self) -> Process:
        """Who publishes."""
        lane = self.run.lane
        return [one for one in lane.supervisor.processes if one.name == f"{lane.name}-relay.0"][-1]

    def press(self, clicks: int = 1) -> None:
        """Press the button, for one order."""
        self._witness.presses[self._who] += 1
        self.page.locator("#ask button").click(click_count=clicks)

    def accepted(self) -> str:
        """Wait until an order is shown that is new, which the system then has to answer for."""
        known = "".join(f":not(#order-{key})" for key in self.run.keys)
        new = self.page.locator("#orders > [id^=order-]" + known)
        order_id = str(new.first.get_attribute("id")).removeprefix("order-")
        self.run.accept(order_id)
        return order_id

    def picture(self, name: str) -> None:
        """Keep what is seen now, as evidence."""
        reports = self.run.lane.supervisor.logs.parent / "reports"
        self.page.screenshot(path=reports / "page" / f"{name}.png", full_page=True)

    def until(self, what: str, probe: Callable[[], object]) -> None:
        """Wait until something is so, whether or not that is seen."""

        def look() -> bool:
            self.page.evaluate("null")  # playwright handles routes and bindings only while it is called
            return bool(probe())

        wait_until(what, look, Deadline(PATIENCE_S))

    def knows(self, query: str, *parameters: object) -> None:
        """Wait until Postgres has something."""
        self.until(query, lambda: self.run.execute(query, *parameters))

    def sees(self, *looks: str) -> None:
        """Wait until the cards look so, the latest first; for orders' ends, when they have ended."""
        if ENDS.issuperset(looks):
            self.knows(ENDED, list(self.run.keys))
        self._look(",".join(looks), f"looks => {LOOKS} === looks")

    def looks(self) -> str:
        """How the cards look now."""
        return str(self.page.evaluate(LOOKS))

    def reads(self, text: str) -> None:
        """Wait until the page says that."""
        self._look(text, "text => document.body.innerText.includes(text)")

    def shows(self, *looks: str) -> None:
        """As `sees`, this moment."""
        if self.looks() != ",".join(looks):
            self._miss(",".join(looks))

    def _look(self, wanted: str, condition: str) -> None:
        try:
            self.page.wait_for_function(condition, arg=wanted, timeout=self._patience_s * 1000)
        except TimeoutError:
            self._miss(wanted)

    def _miss(self, wanted: str) -> None:
        """Keep what is not seen, for `told_the_truth` to say: there is more to be judged."""
        for key in self.run.keys:
            self._witness.write(key, what="in vain", wanted=wanted, seen=self.looks())


@contextlib.contextmanager
def paged_shop(
    session: Session,
    browser: Browser,
    workload: Callable[[Run, Callable[[], Customer]], object],
    *,
    main: Callable[[], object] = display.main,
    charging: Callable[[], object] = payment.main,
    lossy: bool = False,
    overdue_s: float = 30.0,
    at_once_s: float = AT_ONCE_S,
    patience_s: float = PATIENCE_S,
    within: float = 60.0,
) -> Iterator[System]:
    """API, page, relay and the three groups, in a lane of their own.

    Args:
        session: the test run.
        browser: Chromium.
        workload: what customers do; it is given who opens windows.
        main: the page.
        charging: the payment group.
        lossy: whether payment cannot keep what is in the table `broken`; there is a reconciler then, and an operator.
        overdue_s: after so long the page says that we could not confirm yet.
        at_once_s: so soon after the press there has to be a card.
        patience_s: as for `Customer`.
        within: as for `System`.
    """
    topics = {"orders": 1, "retry.payment": 1} | ({"dead.payment": 1} if lossy else {})
    with session.lane(schema=SCHEMA, topics=topics) as lane:
        books, witness = keep_books(lane), Witness(lane.files / "page.jsonl")
        lane.execute(mendable.TABLE)
        common = {"NAMESPACE": "{lane}", "RELAY_NAME": "relay", "GATEWAY_URL": books.gateway}
        api = Worker("api", orders_api.main, http=True, env=common)
        asked = lane.recorder(f"http://{lane.port(api, 0).address}", ledger="asked.jsonl", key="order_id")
        told = {"API_URL": asked.url, "API_TIMEOUT_S": str(API_TIMEOUT_S), "OVERDUE_S": str(overdue_s)}
        page = Worker("display", main, http=True, env=common | told)

        def visits(run: Run) -> None:
            sku = f"sku-{uuid4()}"
            run.execute(STOCK_UP, sku, 1_000)
            run.execute("truncate goods")
            run.execute(PRICED, sku)
            # Each time it is a new customer.
            with Line(lane.port(page, 0).number) as line, browser.new_context(bypass_csp=True) as context:
                workload(run, lambda: Customer(context.new_page(), line, run, witness, sku, patience_s=patience_s))

        with System(
            lane,
            workers=[
                page,
                api,
                Worker("relay", relays.main, env=common),
                *(
                    Worker(name, group, env=common | {"GROUP_INSTANCE_ID": name})
                    for name, group in (
                        ("payment", mendable.books if lossy else charging),
                        ("inventory", inventory.main),
                        ("notification", notification.main),
                    )
                ),
                *(looking_after(common) if lossy else []),
            ],
            workload=visits,
            settled=books.settled,
            invariants=[
                *books.invariants,
                told_the_truth(lane, witness, at_once_s),
                one_order_for_each_press(lane, witness, lane.services["gateway"].ledger),
            ],
            within=within,
        ) as system:
            yield system


def looking_after(common: Mapping[str, str]) -> list[Worker]:
    """Who tries again, who asks the gateway about orders that are pending for an hour, and who sends letters back."""
    patience = {"RETRY_GROUP": "payment", "RETRY_BUDGET": "5", "RETRY_PAUSE_S": "0.01", "RETRY_INTERVAL_S": "0.02"}
    overdue = {"RECONCILE_AFTER_S": "1800", "RECONCILE_INTERVAL_S": "0.02"}
    return [
        Worker("retry", mendable.books_retries, env={**common, **patience}),
        Worker("reconcile", reconcile.main, env={**common, **overdue}),
        Worker("operator", mendable.operate_books, env=dict(common)),
    ]
