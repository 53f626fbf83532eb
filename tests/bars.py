"""How full each partition is, as a page: a chart for each topic, all to one scale, readable on a desk and on a phone.

One file without scripts, which asks nobody for anything.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

STYLE = """
:root { color-scheme: light dark; --ink: #1c2128; --soft: #59636e; --paper: #fff; --hot: #b3261e; --rest: #2457a6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #9aa6b2; --paper: #12161c; --hot: #ff8a80; --rest: #82b1ff; }
}
body { margin: 0 auto; padding: 1rem; max-width: 60rem; background: var(--paper); color: var(--ink);
  font: 16px/1.4 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .4rem; }
p { margin: 0; }
span { margin-right: 1rem; white-space: nowrap; }
i { display: inline-block; width: .8em; height: .8em; }
main { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1.5rem;
  margin-top: 1.5rem; }
figure { margin: 0; }
figcaption strong { display: block; }
figcaption { color: var(--soft); }
figcaption strong { color: var(--ink); }
svg { display: block; width: 100%; font-size: 11px; fill: var(--ink); text-anchor: middle; }
text { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; }
text.soft { fill: var(--soft); }
.hot { fill: var(--hot); background: var(--hot); }
.rest { fill: var(--rest); background: var(--rest); }
line { stroke: var(--ink); stroke-dasharray: 4 3; }
"""
WIDTH, HEIGHT, TOP, BOTTOM = 360, 200, 16, 18


class Chart(NamedTuple):
    """A topic: in each partition, how many messages are the hot key's, and how many are of others."""

    title: str
    partitions: Sequence[tuple[int, int]]

    @property
    def counts(self) -> list[int]:
        """How many messages each partition has."""
        return [hot + rest for hot, rest in self.partitions]

    @property
    def skew(self) -> float:
        """The fullest partition's count, by the mean."""
        return max(self.counts) * len(self.counts) / sum(self.counts)


def page(title: str, hot: str, rest: str, charts: Sequence[Chart]) -> str:
    """The page; `hot` and `rest` say whose the two colours are."""
    top = max(max(chart.counts) for chart in charts)
    colours = "".join(
        f'<span><i class="{name}"></i> {escape(who)}</span>' for name, who in (("hot", hot), ("rest", rest))
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
        f"<h1>{escape(title)}</h1><p>{colours}<span>dashed: the mean</span></p>"
        f"<main>{''.join(_figure(chart, top) for chart in charts)}</main></html>\n"
    )


def _figure(chart: Chart, top: int) -> str:
    scale, step = (HEIGHT - TOP - BOTTOM) / top, WIDTH / len(chart.partitions)
    told = f"{len(chart.partitions)} partitions; one has {chart.skew:.1f} times the mean."
    mean = HEIGHT - BOTTOM - scale * sum(chart.counts) / len(chart.counts)
    bars = "".join(_bar(number, *counts, scale, step) for number, counts in enumerate(chart.partitions))
    line = f'<line x1="0" x2="{WIDTH}" y1="{mean:.1f}" y2="{mean:.1f}"/>'  # behind the numbers, which have a halo
    numbers = "".join(_numbers(number, count, scale, step) for number, count in enumerate(chart.counts))
    return (
        f"<figure><figcaption><strong>{escape(chart.title)}</strong>{told}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(chart.title)}: {chart.counts}">'
        f"{bars}{line}{numbers}</svg></figure>"
    )


def _bar(number: int, hot: int, rest: int, scale: float, step: float) -> str:
    """A partition: others' messages at the bottom, the hot key's on top of them."""
    left, width, ground = step * (number + 0.15), step * 0.7, HEIGHT - BOTTOM
    split, end = ground - scale * rest, ground - scale * (hot + rest)
    return (
        f'<rect class="rest" x="{left:.1f}" y="{split:.1f}" width="{width:.1f}" height="{ground - split:.1f}"/>'
        f'<rect class="hot" x="{left:.1f}" y="{end:.1f}" width="{width:.1f}" height="{split - end:.1f}"/>'
    )


def _numbers(number: int, count: int, scale: float, step: float) -> str:
    """How many messages there are, above the bar, and the partition's number, below it."""
    middle, end = step * (number + 0.5), HEIGHT - BOTTOM - scale * count
    return (
        f'<text x="{middle:.1f}" y="{end - 4:.1f}">{count}</text>'
        f'<text class="soft" x="{middle:.1f}" y="{HEIGHT - 4}">{number}</text>'
    )
