"""A report as a page: one file of HTML that needs nothing else, and asks nobody for anything.

It says first what the verdict is and what was tried. Schedules that failed are grouped (`chaos.report.alike`): what
looks alike is likely to be one cause, which the page does not claim to know. Of each schedule that is shown it has the
line that replays it, what was broken, what was found with the ledger's records, the story of each violating key, and a
timeline: time runs downwards, a lane for each process and each service, an effect goes from one to the other.

The page is never larger than `LIMIT`. What does not fit is counted where it is missing: events of a schedule
(`chaos.report.chart`), timelines, schedules. What violated comes before what is unknown, and the first of each group
before the second.
"""

from __future__ import annotations

import itertools
import re
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from chaos.report import alike, chart, sections

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from chaos.report.alike import Group
    from chaos.report.data import Outcome, Report

LIMIT = 1_950_000
_FRAMES = 350_000  # of it, for what stands around the schedules
_SHOWN = 8  # schedules of a group
_SLOT = re.compile(r"\{\{(\w+)\}\}")


class _Room:
    """How much more goes into the page."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, text: str) -> bool:
        """Whether it fits; then it is counted."""
        size = len(text.encode())
        if size > self.left:
            return False
        self.left -= size
        return True


def page(report: Report) -> str:
    """The report as HTML."""
    slots = {name: _part(f"timeline.{end}") for name, end in (("style", "css"), ("script", "js"))}
    head = sections.head(report)
    template = _part("timeline.html")
    room = _Room(LIMIT - len((template + head + "".join(slots.values())).encode()))
    parts = [("Violated", alike.violated(report.outcomes)), ("Unknown", alike.undecided(report.outcomes))]
    held = [one for one in report.outcomes if one.status == "holds"]
    shown = [[group.outcomes[:_SHOWN] for group in groups] for _, groups in parts]
    shown.append([tuple(one for one in held if one.history)[:_SHOWN]])
    articles, charts = _articles(itertools.chain.from_iterable(map(_by_turns, shown)), _Room(room.left - _FRAMES))
    room.left -= sum(len(text.encode()) for text in (*articles.values(), *charts))
    body = [head, *(_part_of(title, groups, articles, room) for title, groups in parts)]
    body.append(_others("Holds", held, articles))
    body.append(_others("Could not be done", [one for one in report.outcomes if one.status == "unfit"], articles))
    slots |= {"title": escape(f"{report.system}: {report.status}"), "body": "".join(body)}
    slots["data"] = f"[{','.join(charts)}]"
    return _SLOT.sub(lambda slot: slots[slot[1]], template)


def _by_turns(groups: Sequence[Sequence[Outcome]]) -> Iterator[Outcome]:
    """The first of each group, then the second of each, and so on."""
    for row in itertools.zip_longest(*groups):
        yield from filter(None, row)


def _articles(outcomes: Iterable[Outcome], room: _Room) -> tuple[dict[int, str], list[str]]:
    """What is told of each schedule, by its `id`, and the timelines' data, as far as there is room."""
    articles: dict[int, str] = {}
    charts: list[str] = []
    for one in outcomes:
        data = chart.encode(one)
        drawn = bool(data) and room.take(data)
        text = sections.article(one, len(charts) if drawn else None, opened=not articles)
        if room.take(text):
            articles[id(one)] = text
            charts += [data] if drawn else []
    return articles, charts


def _part_of(title: str, groups: Sequence[Group], articles: dict[int, str], room: _Room) -> str:
    """The groups of one status, as many as there is room for."""
    if not groups:
        return ""
    many = sum(len(group.outcomes) for group in groups)
    parts = [f"<h2>{title}: {many:,} {sections.plural('schedule', many)}</h2>"]
    if len(groups) < many:
        kinds = f"{len(groups):,} {sections.plural('group', len(groups))}"
        likely = "What looks alike is likely to be one cause; that is no proof."
        parts.append(f'<p class="aside">They are shown in {kinds} of what looks alike. {likely}</p>')
    for number, group in enumerate(groups):
        shown = "".join(articles.get(id(one), "") for one in group.outcomes)
        rest = [one for one in group.outcomes if id(one) not in articles]
        before, behind = sections.group(
            f"{title}-{number}", group, sections.rest(rest, "more like these, by their replay lines")
        )
        if not room.take(before + behind):
            left = sum(len(one.outcomes) for one in groups[number:])
            parts.append(
                f'<p class="aside">Left out, because the page would have become too large: {left:,} schedules.</p>'
            )
            break
        parts += [before, shown, behind]
    return "".join(parts)


def _others(title: str, outcomes: Sequence[Outcome], articles: dict[int, str]) -> str:
    """Schedules of which there is nothing to find out: some are shown, the others named."""
    if not outcomes:
        return ""
    shown = "".join(articles.get(id(one), "") for one in outcomes)
    rest = sections.rest(
        [one for one in outcomes if id(one) not in articles],
        "more, by their replay lines" if shown else "by their replay lines",
    )
    many = len(outcomes)
    return f"<section><h2>{title}: {many:,} {sections.plural('schedule', many)}</h2>{shown}{rest}</section>"


def _part(name: str) -> str:
    return (files("chaos.report") / name).read_text(encoding="utf-8")
