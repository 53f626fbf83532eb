"""What a report's page says in words: the verdict, the groups, and of each schedule what is known. HTML, all escaped.

It can be read, searched and printed without the page's script, which adds the drawings and nothing else.
"""

from __future__ import annotations

import re
from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from chaos.report.chart import cut
from chaos.report.story import moments, story

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from chaos.report.alike import Group
    from chaos.report.data import Finding, Outcome, Report
    from chaos.report.story import Step

SIGNS = {"holds": "✔", "violated": "✘", "unknown": "?", "unfit": "·"}
_SAID = {
    "holds": "No invariant was broken in any schedule that was tried.",
    "violated": "An invariant was broken. What led there is below, with the line that replays it.",
    "unknown": "This proves less than it should, and says why. Unknown is never taken for a success.",
}
_MOST = 10  # findings, reasons, keys whose story is told
_STEPS = 40
_LONG = 1500
_LIST = 100


def head(report: Report) -> str:
    """The verdict, and what was tried."""
    sign = SIGNS.get(report.status, "?")
    verdict = (
        f'<header class="verdict {escape(report.status)}"><p class="sign" aria-hidden="true">{sign}</p><div>'
        f"<h1>{escape(report.system)}: <span>{escape(report.status)}</span></h1>"
        f"<p>{_SAID.get(report.status, '')}</p></div></header>"
    )
    parts = [verdict, _facts(report)]
    if report.reasons:
        parts.append(f"<section><h2>Why this proves less than it should</h2>{_list(report.reasons)}</section>")
    if report.notes:
        parts.append(f'<section class="notes"><h2>Notes</h2>{_list(report.notes)}</section>')
    return "".join(parts)


def _facts(report: Report) -> str:
    count = Counter(one.status for one in report.outcomes)
    missed = sum(bool(one.not_reached) for one in report.outcomes)
    facts = [("kind", report.kind), ("schedules", f"{len(report.outcomes):,}")]
    facts += [(status, f"{SIGNS[status]} {count[status]:,}") for status in SIGNS if count[status]]
    facts += [("a later fault not reached", f"{missed:,}")] if missed else []
    facts += [("points", f"{len(report.points):,}")] if report.points else []
    facts += [("took", f"{report.seconds:.1f} s")]
    facts += [("shard", report.shard)] if report.shard else []
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts)
    faults = f'<p class="tried">Faults tried: {", ".join(map(_code, report.faults))}</p>' if report.faults else ""
    return f'<dl class="facts">{cells}</dl>{faults}'


def plural(noun: str, many: int) -> str:
    """The noun for so many."""
    return noun if many == 1 else f"{noun}s"


def group(name: str, what: Group, rest: str) -> tuple[str, str]:
    """Schedules that look alike: what stands before those that are shown, and what behind them."""
    many = len(what.outcomes)
    status = what.outcomes[0].status
    title = f"{many:,} {_failing(status)} schedules look alike" if many > 1 else f"1 {_failing(status)} schedule"
    alike = "".join(f"<li>{escape(cut(one))}</li>" for one in what.likeness[:_MOST])
    places = "".join(
        f"<tr><th scope='row'>{_code(place)}</th><td>{escape(kinds)}</td></tr>" for place, kinds in what.broken[:_LIST]
    )
    table = (
        f"<table class='places'><caption>What fired where, and in how many of them</caption>{places}</table>"
        if places and many > 1
        else ""
    )
    before = (
        f'<section class="group {status}" aria-labelledby="{name}"><h3 id="{name}">'
        f'<span class="sign" aria-hidden="true">{SIGNS[status]}</span> {title}</h3>'
        f'<ul class="likeness">{alike}</ul>{table}'
    )
    return before, f"{rest}</section>"


def _failing(status: str) -> str:
    return "failing" if status == "violated" else status


def article(outcome: Outcome, chart: int | None, *, opened: bool) -> str:
    """One schedule: what replays it, what fired, what was found, the story of its keys, and where the drawing goes."""
    text = outcome.schedule or "no fault"
    again = f"run again, violated in {outcome.reproduced} of {outcome.again} runs · " if outcome.again else ""
    inside = [
        f'<p class="replay">Replay: {_code(outcome.replay or outcome.schedule)}</p>'
        if outcome.replay or outcome.schedule
        else "",
        _broken(outcome),
        f"<h4>Why nobody knows</h4>{_list(outcome.reasons)}" if outcome.reasons else "",
        _findings(outcome),
        _stories(outcome),
        _drawing(outcome, chart),
    ]
    took = f"{escape(outcome.status)} · {outcome.seconds:.2f} s"
    return (
        f'<details class="one {escape(outcome.status)}"{" open" if opened else ""}><summary>'
        f'<span class="sign" aria-hidden="true">{SIGNS.get(outcome.status, "?")}</span> {_code(text)}'
        f" <small>{again}{took}</small></summary>{''.join(inside)}</details>"
    )


def _broken(outcome: Outcome) -> str:
    lines = [f"<li>{_code(fault)}: {escape(cut(ended))}</li>" for fault, ended in outcome.fired]
    lines += [
        f"<li>{_code(fault)} was <strong>not reached</strong>: what was broken before had changed the course of things"
        "</li>"
        for fault in outcome.not_reached
    ]
    return f"<h4>What was broken</h4><ul>{''.join(lines)}</ul>" if lines else ""


def _findings(outcome: Outcome) -> str:
    found = [_finding(one) for one in outcome.findings[:_MOST]]
    found += _more(len(outcome.findings), "findings")
    return f"<h4>What was found</h4>{''.join(found)}" if found else ""


def _finding(one: Finding) -> str:
    name, key = escape(cut(one.alias or one.key)), f"<small>{escape(cut(one.key))}</small>"
    said = f"<p><strong>{escape(cut(one.invariant))}</strong>: {name} {escape(cut(one.detail))} {key}</p>"
    if not one.records:
        return said
    records = "\n".join(escape(cut(record, 600)) for record in one.records[:_MOST])
    more = "".join(_more(len(one.records), "records"))
    return f"{said}<p class='from'>The ledger:</p><pre>{records}</pre>{more}"


def _stories(outcome: Outcome) -> str:
    told = moments(outcome.history)
    keys = list(dict.fromkeys(one.alias for one in outcome.findings if one.alias))
    parts = [f"<h4>What happened to {escape(alias)}</h4>{_story(story(told, alias))}" for alias in keys[:_MOST] if told]
    nameless = sum(one.kind == "effect" and not one.aliases for one in told)
    if parts and nameless:
        were = "1 effect is" if nameless == 1 else f"{nameless:,} effects are"
        parts.append(
            f'<p class="aside">{were} in no story, because the wire could not tell which key each was about.</p>'
        )
    return "".join(parts)


def _story(steps: Sequence[Step]) -> str:
    if not steps:
        return "<p>Nothing that was seen on the wire was about this key.</p>"
    lines = "".join(map(_step, steps[:_STEPS]))
    return f'<ol class="story">{lines}</ol>{"".join(_more(len(steps), "steps", _STEPS))}'


def _step(step: Step) -> str:
    kind = ' class="broke"' if step.broke else ""
    return f'<li{kind}><span class="at">{step.at:.3f}</span> {escape(cut(step.text))}</li>'


def _drawing(outcome: Outcome, chart: int | None) -> str:
    if chart is None:
        why = "its history is not in the report" if not outcome.history else "the page would have become too large"
        return f'<p class="aside">There is no timeline here: {why}.</p>'
    return f'<div class="chart" data-chart="{chart}"><noscript>The timeline is drawn by a script.</noscript></div>'


def rest(outcomes: Sequence[Outcome], what: str) -> str:
    """Those that are named only."""
    if not outcomes:
        return ""
    lines = "".join(f"<li>{_code(one.schedule or 'no fault')}{_later(one)}</li>" for one in outcomes[:_LIST])
    more = "".join(_more(len(outcomes), "schedules", _LIST))
    return f'<details class="rest"><summary>{len(outcomes):,} {what}</summary><ul>{lines}</ul>{more}</details>'


def _later(outcome: Outcome) -> str:
    return " <small>a later fault was not reached</small>" if outcome.not_reached else ""


def _list(texts: Iterable[str]) -> str:
    texts = tuple(texts)
    lines = "".join(f'<li class="long">{escape(cut(text, _LONG))}</li>' for text in texts[:_LIST])
    return f"<ul>{lines}</ul>{''.join(_more(len(texts), 'lines', _LIST))}"


def _more(many: int, what: str, most: int = _MOST) -> list[str]:
    return [f'<p class="aside">Showing {most:,} of {many:,} {what}.</p>'] if many > most else []


def _code(text: str) -> str:
    """Code that may break behind its punctuation: points are long, and a telephone is narrow."""
    pieces = re.split(r"(?<=[/#\]:])", cut(text, _LONG))
    return f"<code>{'<wbr>'.join(map(escape, pieces))}</code>"
