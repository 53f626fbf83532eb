"""The page as text: what it says, what it leaves out and says so, and that nothing in a report becomes markup."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import msgspec
import pytest

from chaos.report import chart, timeline
from chaos.report.data import Finding, Outcome
from chaos.report.story import moments
from tests.chaos.report.histories import Play, charged_twice, double_charge, report, thousand_orders


def data(page: str) -> list[Any]:
    """What is embedded for the script."""
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    found: list[Any] = json.loads(match[1])
    return found


def words(page: str) -> str:
    """The page without its tags, styles and scripts."""
    bare = re.sub(r"<(style|script)\b.*?</\1>|<wbr>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", bare).split())


def test_what_it_says() -> None:
    """Verdict, counts, groups, and of a schedule: its replay, how often it failed again, findings, records, story."""
    outcomes = [double_charge(f"key-{number}") for number in (1, 2)]
    missed = Outcome("a~0/b#1:crash-before; a~1/b#1:crash-after", "holds", not_reached=("a~1/b#1:crash-after",))
    reasons = ("the audit found a hole",)
    told = report(*outcomes, missed, Outcome("a~0/c#1:repeat", "unfit"))
    text = words(timeline.page(msgspec.structs.replace(told, reasons=reasons, shard="2/8", notes=("it is late",))))

    for said in (
        "shop: violated",
        "✘ 2",
        "a later fault not reached 1",
        "shard 2/8",
        "Why this proves less than it should the audit found a hole",
        "Notes it is late",
        "2 failing schedules look alike one effect per key: payment/http.post was done more than once",
        "Replay: payment~0/http.post[key-1]#1:crash-after",
        "run again, violated in 8 of 10 runs",
        "payment~0/http.post[key-1]#1:crash-after : payment~0 was ended by SIGKILL",
        "one effect per key : key-1 has 2 effects",
        "&quot;order_id&quot;:&quot;key-1&quot;",
        "0.005 payment: http.post done → crash-after",
        "Could not be done: 1 schedule",
    ):
        assert said in text


@pytest.mark.parametrize(("status", "sign"), [("holds", "✔"), ("violated", "✘"), ("unknown", "?")])
def test_verdicts(status: str, sign: str) -> None:
    """A verdict is a word and a sign, not a colour alone."""
    page = timeline.page(report(status=status))
    assert f'<p class="sign" aria-hidden="true">{sign}</p>' in page
    assert f"shop: {status}" in words(page)


def test_nothing_becomes_markup() -> None:
    """Whatever stands in names, ledgers and reasons stays text, in the page and in the script's data."""
    evil = "</script><!--<script>alert(1)//{{script}}<b>"
    play = Play(evil)
    play.effect("w.0", f"http.{evil}", evil)
    found = Finding(evil, evil, evil, evil, (evil,))
    page = timeline.page(report(play.outcome("violated", found, reasons=[evil])))

    assert page.count("<script") == page.count("</script>") == 2
    assert "<!--" not in page
    assert "<b>" not in page.partition("<footer>")[0]
    assert evil in json.dumps(data(page), ensure_ascii=False)


def test_it_asks_nobody() -> None:
    """No address stands in the page, and its policy forbids every request."""
    page = timeline.page(report(double_charge()))
    assert "default-src 'none'" in page
    assert not re.search(r"""(?:src|href)=|url\((?!#)|@import|fetch\(|XMLHttp""", page)


def test_a_thousand_orders() -> None:
    """Of ten thousand events faults and what is about the violating key are kept; how many are not is said."""
    outcome = thousand_orders()
    page = timeline.page(report(outcome))
    [drawn] = data(page)

    assert len(page.encode()) < timeline.LIMIT
    assert (drawn["all"], drawn["shown"] < chart.EVENTS * 1.2) == (len(outcome.history), True)
    kinds = [drawn["texts"][row[0]] for row in drawn["rows"]]
    assert (kinds.count("fault"), kinds.count("start"), kinds.count("judged")) == (1, 1, 1)
    assert drawn["keys"][0] == ["key-500", ["key-500-00000000000000000000"], 1]
    assert sum(0 in row[5][::2] for row in drawn["rows"]) == 3
    left = sum(row[12] for row in drawn["rows"]) + drawn["rest"]
    assert left + sum(2 if row[7] >= 0 else 1 for row in drawn["rows"]) == sum(
        one.events for one in moments(outcome.history)
    )


def test_too_many_faults() -> None:
    """Even what comes first is cut where there is too much of it."""
    told = moments(thousand_orders(20).history)
    assert chart.choose(told, {"key-10"}, most=5) == sorted(chart.choose(told, {"key-10"}, most=5))
    assert sum(told[number].events for number in chart.choose(told, {"key-10"}, most=5)) <= 5


def test_the_page_has_a_limit() -> None:
    """However much there is to tell, the page is no larger than it may be, and says what is missing."""
    one = thousand_orders(400)
    outcomes = [msgspec.structs.replace(one, schedule=f"{one.schedule}; {number}") for number in range(20)]
    letters = itertools.product("ghijklmnopqrstuvwxyz", repeat=2)
    many = [Outcome("x~0/y#1:crash-before", "unknown", reasons=(f"{a}{b} " * 100,) * 10) for a, b in letters]
    many = [msgspec.structs.replace(two, reasons=tuple(f"{s} {two.reasons[0]}" for s in "abcdefghij")) for two in many]
    huge = "x" * 5000
    found = Finding(huge, huge, "key-1", huge, (huge,) * 50)
    page = timeline.page(
        report(*outcomes, *many, Outcome(huge, "violated", findings=(found,) * 50, reasons=(huge,) * 300))
    )

    assert len(page.encode()) <= 2_000_000
    assert "12 more like these" in words(page)
    assert "the page would have become too large" in words(page)


def test_unknown_and_without_history() -> None:
    """What cannot be drawn says why."""
    page = words(
        timeline.page(report(Outcome("x~0/y#1:crash-before", "unknown", reasons=("it was late",)), status="unknown"))
    )
    assert "There is no timeline here: its history is not in the report." in page
    assert "Why nobody knows it was late" in page


def test_many_findings() -> None:
    """Long lists are cut, and say so."""
    play = Play()
    found = [charged_twice(f"key-{number}") for number in range(30)]
    assert "Showing 10 of 30 findings." in words(timeline.page(report(play.outcome("violated", *found))))
