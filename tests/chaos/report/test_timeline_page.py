"""The page in a real browser: it opens from a file, asks nobody for anything, and does what it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from chaos.report import timeline
from tests.chaos.report.histories import Play, charged_twice, double_charge, order, report, thousand_orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Page

    from chaos.report.data import Outcome, Report

WIDE, NARROW = 1280, 400


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Iterator[Callable[..., Page]]:
    """Opens a report's page. In the end there was no error, and no request but the one for the file."""
    file = tmp_path / "timeline.html"
    errors: list[str] = []
    requests: list[str] = []
    context = browser.new_context()

    def open_it(told: Report, *, width: int = WIDE) -> Page:
        file.write_text(timeline.page(told), encoding="utf-8")
        page = context.new_page()
        page.set_viewport_size({"width": width, "height": 900})
        page.on("console", lambda message: errors.append(message.text))
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(file.as_uri())
        page.locator(".board li[data-row]").first.wait_for()
        return page

    yield open_it
    context.close()
    assert errors == []
    assert set(requests) == {file.as_uri()}


def two_orders() -> Outcome:
    """One order goes well; the other is charged by a frozen worker and by its successor, and a third process dies."""
    play = Play("payment~0/postgres.commit[key-2]#1:hold=1")
    order(play, "key-1")
    play.key("key-2")
    play.effect("payment.0", "http.post", "key-2")
    held = play.ask("payment.0", "postgres.commit", "key-2")
    play.effect("payment.1", "http.post", "key-2")
    play.checkpoint("payment.1", "payment.charged")
    play.broke("payment~0/postgres.commit[key-2]#1:hold=1", "payment.0~0", "delivered after another of its kind")
    play.reply(held, "refused")
    play.pause(0.3)
    play.broke("payment~0/payment.charged#1:crash-before", "payment.1~0")
    play.start("payment.1~1")
    for outcome in ("lost", "unclear", "sent"):
        play.effect("payment.1", "postgres.write", outcome=outcome)
    return play.outcome("violated", charged_twice("key-2"), again=10)


@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_it_fits(opened: Callable[..., Page], width: int) -> None:
    """On a desk and on a telephone nothing reaches out of the page, whatever is unfolded."""
    long = msgspec.structs.replace(double_charge(), reasons=("x" * 500,), status="unknown")
    page = opened(report(two_orders(), double_charge(), long), width=width)
    for _ in range(2):  # a timeline is drawn when its schedule is unfolded, and can be unfolded itself
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
        page.locator(".board svg.graph").nth(2).wait_for()
    page.locator(".events table").nth(2).wait_for()

    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_violating_key_is_shown_first(opened: Callable[..., Page]) -> None:
    """The first schedule is open, filtered by the key that violates; another key or all are a choice away."""
    page = opened(report(two_orders()))
    rows, keys = page.locator(".board li[data-row]"), page.get_by_label("Key")

    assert keys.locator("option:checked").inner_text() == "key-2 ✘ violates"
    assert page.locator(".board li.hit").count() == page.locator(".board li.effect, .board li.accepted").count() > 0
    keys.select_option(label="key-1")
    assert (page.locator(".board li.effect").count(), page.locator(".board li.hit").count()) == (4, 0)
    assert page.locator(".board li.fault").count() == 2  # faults and restarts are always there
    keys.select_option(label="all 2 keys here")
    assert f"Showing {rows.count() - 1} of" in page.locator(".count").inner_text()  # one effect is two lines
    page.get_by_label("Search").fill("charged")
    assert rows.count() == 2


def test_by_keyboard(opened: Callable[..., Page]) -> None:
    """Rows are gone through with the arrow keys, and each says all that is known of it."""
    page = opened(report(two_orders()))
    detail = page.locator(".facts-of")
    page.get_by_label("Search").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")

    assert "payment~0/http.post#2 = payment~0/http.post[key-2]#1" in detail.inner_text()
    page.keyboard.press("End")
    assert "judged: violated" in detail.inner_text()


def test_by_pointer(opened: Callable[..., Page]) -> None:
    """A fault's row, pointed at, says what was done and how it ended."""
    page = opened(report(two_orders()))
    page.locator(".board li.fault").first.hover()

    assert "delivered after another of its kind" in page.locator(".facts-of").inner_text()


def test_what_is_drawn(opened: Callable[..., Page]) -> None:
    """A lane for each process and each service, and a band for the time without one."""
    page = opened(report(two_orders()))
    page.get_by_label("Key").select_option("-1")

    lanes = page.locator(".lanes text").all_text_contents()
    assert lanes == ["api~0", "relay~0", "payment.0~0", "payment.1~0", "payment.1~1", "postgres", "kafka", "http"]
    assert page.locator(".graph rect[fill^='url(#hatch']").count() == 1


def test_as_a_table(opened: Callable[..., Page]) -> None:
    """Everything is in a table as well."""
    page = opened(report(two_orders()))
    page.locator(".events summary").click()

    table = page.locator(".events table")
    table.wait_for()
    assert table.locator("tbody tr").count() == 17
    assert "postgres.commit" in table.inner_text()


def test_a_thousand_orders(opened: Callable[..., Page]) -> None:
    """A page of a thousand orders has two megabytes at most, opens, and says how much of it is drawn."""
    told = report(thousand_orders())
    assert len(timeline.page(told).encode()) <= 2_000_000
    page = opened(told)
    page.get_by_label("Key").select_option("-1")

    assert "of 10,000 events" in page.locator(".count").inner_text()
    assert page.locator(".board li.fault").is_visible()
