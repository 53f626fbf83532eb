"""What a run has told becomes reports: nothing that does not hold is left out, and what replays it is there."""

from __future__ import annotations

import shlex
from html import escape
from typing import TYPE_CHECKING

from chaos.history import Named
from chaos.report import build, data
from chaos.report.timeline import page
from chaos.schedule import Schedule
from tests.chaos.test_exploration import Place, bug, explore

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.drill import Verdict


def test_exploration() -> None:
    """The smallest schedule comes first: how often it violates, the command, its events, and what it was found as."""
    found = explore(Place(bug()), replay=lambda text: f"again '{text}'").run()
    [report] = build.reports([found], "a shop")
    first = report.outcomes[0]
    example = found.counterexample
    assert (report.kind, report.system, report.status) == ("explore", "a shop", "violated")
    assert (first.schedule, first.again, first.reproduced) == (str(example.smallest.schedule), 10, 10)
    assert first.replay == f"again '{first.schedule}'"
    assert first.history
    assert f"found as {example.found.schedule}" in report.notes
    assert [one.status for one in report.outcomes].count("violated") == 1
    assert len(report.outcomes) == len(found.verdicts)


def test_drills(tmp_path: Path) -> None:
    """Drills are one report; a key is told by its alias too; JSON and page are written, and the JSON can be read."""

    def named(schedule: Schedule, verdict: Verdict) -> None:
        verdict.history.append(Named(1.5, "k", "key-1"))
        bug()(schedule, verdict)

    texts = (
        "pay/http.post[key-1]#1:crash-after",
        "relay/kafka.produce[key-1]#1:crash-after; pay/http.post[key-1]#1:crash-after",
    )
    verdicts = list(Place(named).each(map(Schedule.parse, texts)))
    [report] = build.reports(verdicts, "a shop")
    assert (report.kind, report.status) == ("drill", "violated")
    assert [one.status for one in report.outcomes] == ["holds", "violated"]
    assert [finding.alias for finding in report.outcomes[1].findings] == ["key-1"]
    [page] = build.write(tmp_path, [report])
    assert data.read(tmp_path / "report.json") == report
    assert "violated" in page.read_text(encoding="utf-8")


def test_many() -> None:
    """Of what holds some histories are kept, and of what does not so many as somebody will look at."""
    schedule = Schedule.parse("pay/http.post[key-1]#1:crash-after")
    right = list(Place().each([schedule] * 100))
    wrong = list(Place(lambda _schedule, verdict: verdict.reasons.append("why not")).each([schedule] * 100))
    [report] = build.reports([*right, *wrong], "a shop")
    kept = [outcome.status for outcome in report.outcomes if outcome.history]
    assert (kept.count("holds"), kept.count("unknown")) == (3, 40)
    assert len(report.outcomes) == 200


def test_replay_line_can_be_copied() -> None:
    """Quotes of a command are quotes on the page, and where it may break its text does not change."""
    found = explore(Place(bug()), replay=lambda text: f"again {shlex.quote(text)}").run()
    [report] = build.reports([found], "a shop")
    shown = page(report).replace("<wbr>", "")
    assert escape(report.outcomes[0].replay) in shown
