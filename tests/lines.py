"""Gauges over time, as a page: one chart, its marks as dashed lines, readable on a desk and on a phone.

One file without scripts, which asks nobody for anything.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from tests.bars import STYLE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MORE = """
main { display: block; max-width: 40rem; }
path { fill: none; stroke-width: 2; }
path.hot { stroke: var(--hot); fill: none; } path.rest { stroke: var(--rest); fill: none; }
"""
CLASSES = ("hot", "rest")
WIDTH, HEIGHT, TOP, BOTTOM, LEFT = 360, 220, 30, 18, 26
SMALL = 10  # what is below is given with a decimal


class Series(NamedTuple):
    """What is shown: pairs of seconds and values, at most two series of one unit."""

    title: str
    values: Sequence[tuple[float, float]]


def page(title: str, series: Sequence[Series], marks: Mapping[str, float]) -> str:
    """The page; `marks` are moments, in seconds."""
    last = max(*marks.values(), *(at for one in series for at, _ in one.values))
    top = max(value for one in series for _, value in one.values)
    places = 0 if top >= SMALL else 1
    across, up = (WIDTH - LEFT - 8) / last, (HEIGHT - TOP - BOTTOM) / top

    def place(at: float, value: float) -> str:
        return f"{LEFT + across * at:.1f} {HEIGHT - BOTTOM - up * value:.1f}"

    told = "".join(
        f'<span><i class="{name}"></i> {escape(one.title)}</span>' for name, one in zip(CLASSES, series, strict=False)
    )
    lines = "".join(
        f'<path class="{name}" d="M{" L".join(place(*point) for point in one.values)}"/>'
        for name, one in zip(CLASSES, series, strict=False)
    )
    dashes = "".join(_mark(number, name, LEFT + across * at) for number, (name, at) in enumerate(marks.items()))
    scale = "".join(
        f'<text class="soft" x="{LEFT - 12}" y="{HEIGHT - BOTTOM - up * value + 4:.1f}">{value:.{places}f}</text>'
        for value in (0, top / 2, top)
    )
    clock = "".join(
        f'<text class="soft" x="{LEFT + across * at:.1f}" y="{HEIGHT - 4}">{at:.0f} s</text>' for at in (0, last / 2)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}{MORE}</style>'
        f"<h1>{escape(title)}</h1><p>{told}</p>"
        f'<main><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        f"{scale}{clock}{lines}{dashes}</svg></main></html>\n"
    )


def _mark(number: int, name: str, x: float) -> str:
    """A moment; the names of two that are close stand one above the other."""
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        f'<text x="{min(max(x, 40), WIDTH - 30):.1f}" y="{12 + 13 * (number % 2)}">{escape(name)}</text>'
    )
