"""The operators' page: what the gauges say, who is parked, and dead letters that go back when it is asked for twice."""

from __future__ import annotations

import os
import re
import signal
import socket
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import psutil
import pytest
from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from playwright.sync_api import expect

from pipeline.observe.gauges import GAUGES, HOPS
from pipeline.quarantine.letters import FAILING, POISON
from tests.pipeline.workers import Start, Worker, free_port, until

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from playwright.sync_api import Browser, Page

    from chaos import Lane, Session

PARK = "insert into parked_orders values ('inventory', %s, 3, %s, %s, '2026-01-02 03:04:05')"
PATIENCE_MS = 20_000
SHAPES = [(1280, "light"), (400, "dark")]


@pytest.fixture
def env(lane: Lane, namespace: str, db: psycopg.Connection) -> dict[str, str]:
    """Of the page and of the gauges; nothing is parked or dead."""
    db.execute("truncate parked_orders, parked_events, replays")
    assert lane.postgres is not None
    assert lane.kafka is not None
    return {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}


@pytest.fixture
def page(start: Start, env: dict[str, str]) -> Worker:
    """The page, with gauges."""
    gauges = start("observe", PORT=free_port(), **env).listening()
    url = f"http://127.0.0.1:{gauges.port}/metrics"
    return start("operator", PORT=free_port(), GAUGES_URL=url, **env).listening()


def shown(page: Worker, path: str = "/") -> str:
    """What is answered."""
    status, _, text = page.ask("GET", path)
    assert status == 200
    return " ".join(text.decode().split())


def press(page: Worker, *, headers: dict[str, str] | None = None, **form: str) -> tuple[int, str]:
    """Post the form."""
    told = {"Content_Type": "application/x-www-form-urlencoded"} | (headers or {})
    status, _, text = page.ask("POST", "/replay", urlencode(form), **told)
    return status, text.decode()


def named(text: str) -> str:
    """What the second button asks for; nothing, if there is no such button."""
    found = re.search(r'name="shown" value="(\w+)"', text)
    return found[1] if found else ""


@pytest.fixture
def dies(lane: Lane, env: dict[str, str]) -> Callable[..., None]:
    """Makes a dead letter of the inventory group, of such a kind."""
    names = [f"{env['NAMESPACE']}.{kind}.inventory" for kind in ("dead", "retry")]
    admin = AdminClient({"bootstrap.servers": lane.kafka})
    for made in admin.create_topics([NewTopic(name, 1, 1) for name in names]).values():
        made.result()
    producer = Producer({"bootstrap.servers": lane.kafka})

    def put(order: str, kind: str = FAILING) -> None:
        producer.produce(names[0], b"letter", order.encode(), headers=[("x-kind", kind.encode())])
        assert producer.flush(20) == 0

    return put


def test_the_hops(page: Worker, db: psycopg.Connection) -> None:
    """All six are there in order, each with its gauges, and what is trouble is called so: nobody is in a group."""
    text = shown(page)
    assert re.findall("<h3>(.+?)</h3>", text) == [*HOPS, "observe"]
    bare = {*HOPS} - {gauge.hop for gauge in GAUGES.values()}
    assert text.count("No gauge of its own.") == len(bare)
    assert "<small>payment</small> 0 <strong>trouble</strong>" in text
    assert "None." in text
    db.execute(PARK, ["order-1", "now", "<b>why</b>"])
    db.execute(PARK, ["order-2", None, "because"])
    text = shown(page, "/parked")
    assert "<code>order-1</code>" in text
    assert "<td>2026-01-02 03:04:05</td> <td>3</td> <td>&lt;b&gt;why&lt;/b&gt;</td>" in text
    assert text.count("given up: see dead letters") == 1
    assert "HTTP Request" not in page.log


@pytest.fixture
def lonely(start: Start) -> Worker:
    """A page that reaches nobody, and is not told of Kafka."""
    nobody = f"127.0.0.1:{free_port()}"
    env = {"DATABASE_URL": f"postgresql://x@{nobody}/x", "GAUGES_URL": f"http://{nobody}/metrics"}
    return start("operator", PORT=free_port(), **env).listening()


def test_what_is_not_known_is_said(lonely: Worker) -> None:
    """Without gauges and without Postgres there is a page, that says so; no hop looks well."""
    text = shown(lonely)
    assert "There are no gauges" in text
    assert "Postgres at 127.0.0.1" in text
    assert text.count("Not known now.") == len({gauge.hop for gauge in GAUGES.values()})
    assert 'class="card confirmed"' not in text


def test_a_failure_is_one(lonely: Worker) -> None:
    """Where the tool fails that is said as such, to people and to machines, with what it has said."""
    for shown_before in ("", "0"):
        status, text = press(lonely, group="inventory", shown=shown_before)
        assert status == 502
        assert "It has failed" in text
        assert "KAFKA_BOOTSTRAP_SERVERS is not set" in text


def test_the_tool_speaks_to_people(start: Start, env: dict[str, str]) -> None:
    """What the page itself is told about logs and ports is not for the tool."""
    ours = {"METRICS_PORT": free_port(), "LOG_LEVEL": "WARNING", "LOG_FORMAT": "json"}
    gauges = {"GAUGES_URL": f"http://127.0.0.1:{free_port()}/metrics"}
    page = start("operator", PORT=free_port(), **env, **ours, **gauges).listening()
    status, text = press(page, group="inventory")
    assert status == 200
    assert re.search(r"<pre[^>]*>\S+ replay INFO 0 of 0 letters would be sent", text)


def test_the_tool_ends_with_the_page(start: Start, env: dict[str, str]) -> None:
    """Who is asked to end while the tool runs does not leave it behind."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env |= {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{silent.getsockname()[1]}", "GAUGES_URL": "http://127.0.0.1:9/"}
        page = start("operator", PORT=free_port(), **env).listening()
        with socket.create_connection(("127.0.0.1", int(str(page.port)))) as client:
            form = b"group=inventory"
            client.sendall(b"POST /replay HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(form) + form)
            [tool] = until(psutil.Process(page.process.pid).children)
            os.kill(page.process.pid, signal.SIGTERM)  # it alone: `ended` would ask the tool, too
            assert until(lambda: page.process.exit).status == 0
            assert not tool.is_running() or tool.status() == psutil.STATUS_ZOMBIE


def test_dead_letters_go_back(page: Worker, dies: Callable[..., None], db: psycopg.Connection) -> None:
    """The first button says what would be sent, the second sends it; what nobody can read is left, and not sent."""
    dies("order-1")
    dies("order-2", POISON)
    fates = "select origin like %s, fate from replays order by noted_at"
    status, text = press(page, group="inventory", do="send")
    assert (status, "would be sent" in text, "Send it" in text) == (200, True, True)
    assert "order-1" in text
    assert "order-2" not in text
    assert db.execute(fates, ["%@0"]).fetchall() == []
    again = press(page, group="inventory", do="send", shown=named(text))[1]
    assert "1 of 1 letters were sent" in again
    assert named(again) == named(press(page, group="inventory", do="send")[1]) == ""
    status, text = press(page, group="inventory", do="leave")
    assert (status, "would be left" in text, "Leave it" in text) == (200, True, True)
    assert "1 of 1 letters were left" in press(page, group="inventory", do="leave", shown=named(text))[1]
    assert db.execute(fates, ["%@0"]).fetchall() == [(True, "sent"), (False, "left")]


def test_what_was_shown_is_sent(page: Worker, dies: Callable[..., None], db: psycopg.Connection) -> None:
    """What has died since, and what was never shown, is not sent: it is shown instead."""
    dies("order-1")
    old = named(press(page, group="inventory")[1])
    dies("order-2")
    for changed in (old, "yes"):
        status, text = press(page, group="inventory", shown=changed)
        assert (status, "Nothing was done" in text, "order-2" in text) == (409, True, True)
        assert db.execute("select from replays").fetchall() == []
    assert press(page, group="inventory", really="yes")[0] == 200
    assert db.execute("select from replays").fetchall() == []
    assert "2 of 2 letters were sent" in press(page, group="inventory", shown=named(text))[1]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, 200),
        ({"Host": "localhost:{}", "Origin": "http://localhost:{}", "Sec_Fetch_Site": "same-origin"}, 200),
        ({"Host": "[::1]:{}"}, 200),
        ({"Origin": "http://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Host": "localhost:{}", "Origin": "http://localhost:1"}, 403),
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Host": "elsewhere.example:{}", "Origin": "http://elsewhere.example:{}"}, 403),
        ({"Host": "127.0.0.1.elsewhere.example:{}"}, 403),
        ({"Host": "127.0.0.1@elsewhere.example"}, 403),
    ],
)
def test_who_may_press(page: Worker, headers: dict[str, str], expected: int) -> None:
    """Other people's pages may not, by whatever name they have a browser come; nor may they look."""
    headers = {name: value.format(page.port) for name, value in headers.items()}
    assert press(page, headers=headers, group="inventory")[0] == expected
    may_look = "elsewhere" not in headers.get("Host", "")
    assert page.ask("GET", "/parked", **headers)[0] == (200 if may_look else 403)


def test_there_are_three_groups(page: Worker) -> None:
    """Others are refused, and so is what cannot be done to letters."""
    assert press(page, group="everybody")[0] == 422
    assert press(page, group="inventory", do="burn")[0] == 422


def answers_500(_: Worker, window: Page) -> None:
    """It has a fault."""
    window.route("**/hops", lambda route: route.fulfill(status=500, body="Internal Server Error"))


def is_silent(_: Worker, window: Page) -> None:
    """It hangs."""
    window.route("**/parked", lambda _: None)


def dies_itself(page: Worker, _: Page) -> None:
    """It is gone."""
    page.process.kill()


@pytest.mark.parametrize("fails", [answers_500, is_silent, dies_itself])
def test_what_is_old_is_said_to_be(
    browser: Browser, page: Worker, start: Start, env: dict[str, str], fails: Callable[[Worker, Page], None]
) -> None:
    """Nothing looks healthy because it was healthy once; and a button says that it was not answered."""
    with browser.new_context() as context:
        window = context.new_page()
        window.goto(f"http://127.0.0.1:{page.port}/")
        old = window.locator("#old")
        expect(old).to_be_empty()
        fails(page, window)
        expect(old).to_have_text(re.compile(r"^Nothing heard for \d+ s: what you see is old\.$"), timeout=PATIENCE_MS)
        expect(window.locator("#hops h3")).to_have_text([*HOPS, "observe"])
        if fails is dies_itself:
            window.get_by_role("button", name="What would be sent?").click()
            expect(window.get_by_text("There was no answer.")).to_be_visible(timeout=PATIENCE_MS)
            start("operator", PORT=page.port, GAUGES_URL="http://127.0.0.1:9/", **env).listening()
        window.unroute_all()
        expect(old).to_be_empty(timeout=PATIENCE_MS)


def test_a_failure_is_shown(browser: Browser, lonely: Worker) -> None:
    """What the tool says of its failure is there without a new page, and goes by nobody."""
    with browser.new_context() as context:
        window = context.new_page()
        window.goto(f"http://127.0.0.1:{lonely.port}/")
        window.get_by_role("button", name="What would be left?").click()
        expect(window.get_by_role("heading", name="It has failed")).to_be_visible(timeout=PATIENCE_MS)
        expect(window.get_by_text("KAFKA_BOOTSTRAP_SERVERS is not set")).to_be_visible()


def test_who_reads_is_not_disturbed(browser: Browser, page: Worker, db: psycopg.Connection) -> None:
    """Fresh rows leave focus and scroll where they are."""
    db.execute(PARK, ["order-1", None, "a_long_reason_without_a_space" * 10])
    with browser.new_context(viewport={"width": 400, "height": 900}) as context:
        window = context.new_page()
        window.goto(f"http://127.0.0.1:{page.port}/")
        table = window.get_by_role("region", name="Table of parked orders")
        table.focus()
        table.evaluate("it => { it.scrollLeft = 120 }")
        db.execute(PARK, ["order-2", None, "because"])
        expect(table.get_by_text("order-2")).to_be_visible(timeout=PATIENCE_MS)
        expect(table).to_be_focused()
        assert table.evaluate("it => it.scrollLeft") == 120


@pytest.mark.parametrize("shape", SHAPES, ids=["wide, light", "narrow, dark"])
def test_it_is_for_everybody(
    browser: Browser,
    page: Worker,
    dies: Callable[..., None],
    db: psycopg.Connection,
    onecharge: Session,
    *,
    shape: tuple[int, str],
) -> None:
    """Nothing that axe finds and nothing beside the screen, and what a button brings is there without a new page."""
    db.execute(PARK, ["order-1", None, "pipeline.runtime.Unavailable: a long reason, which says a lot " * 3])
    dies("order-1")
    width, scheme = shape
    settings: dict[str, Any] = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with browser.new_context(**settings) as context:
        window = context.new_page()
        window.goto(f"http://127.0.0.1:{page.port}/")
        window.get_by_label("Group").select_option("inventory")
        window.get_by_role("button", name="What would be sent?").click()
        expect(window.get_by_role("button", name="Send it")).to_be_visible(timeout=PATIENCE_MS)
        window.screenshot(path=onecharge.output / f"operators-{scheme}-{width}.png", full_page=True)
        assert Axe().run(window).response["violations"] == []
        assert window.evaluate("document.documentElement.scrollWidth") == width
        page.process.kill()
        expect(window.get_by_text("what you see is old")).to_be_visible(timeout=PATIENCE_MS)
        window.screenshot(path=onecharge.output / f"operators-{scheme}-{width}-old.png", full_page=True)
        assert Axe().run(window).response["violations"] == []
