"""The six hops, as each room declares its own, and the page and the picture that are made of that.

`python -m pipeline.hops DIRECTORY` writes `hops.md` and `hops.svg`; a test compares them with what is in docs/.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple
from xml.sax.saxutils import escape

ROOMS = ("write", "publish", "route", "process", "quarantine", "display")
BETWEEN = ("outbox", "Kafka", "Kafka", "Postgres", "Postgres")  # what carries an order to the next
STYLE = """
text { font: 12px sans-serif; fill: #1c1f26 } .name { font-size: 15px; font-weight: bold } .held { fill: #13693a }
.carried { font-size: 11px; fill: #545b69 } rect { fill: #fff; stroke: #1d4ed8 } path { fill: none; stroke: #545b69 }
"""
WIDTH, HEIGHT, GAP, LINE, COLUMN = 250, 200, 60, 17, 34  # pixels; and characters of a line


class Hop(NamedTuple):
    """What a room promises, what holds that, and where a duplicate can arise and is removed, until when."""

    guarantee: str
    defence: str
    breaks: str
    duplicate: str
    removed: str
    drills: tuple[str, ...]  # tests/drills/test_*.py


def hops() -> dict[str, Hop]:
    """By the names of their rooms, in the order in which an order passes them."""
    return {room: import_module(f"pipeline.{room}").HOP for room in ROOMS}


def page() -> str:
    """The page, as Markdown."""
    lines = [
        "# The six hops",
        "",
        "Made by `python -m pipeline.hops docs` of what each room of `src/pipeline` declares.",
        "",
        "![An order's way](hops.svg)",
        "",
        "| hop | guarantee | defence | where it can break | drills |",
        "|---|---|---|---|---|",
    ]
    for number, (room, hop) in enumerate(hops().items(), 1):
        drills = ", ".join(f"[{name}](../tests/drills/test_{name}.py)" for name in hop.drills)
        lines.append(f"| {number}. {room} | {hop.guarantee} | {hop.defence} | {hop.breaks} | {drills} |")
    lines += [
        "",
        "## Where a duplicate can arise, who removes it, until when",
        "",
        "| hop | a duplicate | is removed by, until |",
        "|---|---|---|",
        *(f"| {room} | {hop.duplicate} | {hop.removed} |" for room, hop in hops().items()),
    ]
    return "\n".join(lines) + "\n"


def picture() -> str:
    """The picture: two rows of three, with what is between them on the arrows."""
    across, down = 3 * WIDTH + 4 * GAP, 2 * HEIGHT + 3 * GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" role="img" aria-label="Six hops">'
    parts = [head, f"<style>{STYLE}</style>"]
    for number, (room, hop) in enumerate(hops().items()):
        x, y = GAP + number % 3 * (WIDTH + GAP), GAP + number // 3 * (HEIGHT + GAP)
        parts.append(f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>')
        parts.append(f'<text class="name" x="{x + 12}" y="{y + 24}">{number + 1}. {room}</text>')
        row = y + 46
        for text, kind in ((hop.guarantee, ""), (hop.defence, "held")):
            for line in wrap(text, COLUMN):
                parts.append(f'<text class="{kind}" x="{x + 12}" y="{row}">{escape(line)}</text>')
                row += LINE
            row += LINE // 3
        if number < len(BETWEEN):
            parts.append(_arrow(number, x, y))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _arrow(number: int, x: int, y: int) -> str:
    carried = f'<text class="carried" x="{{}}" y="{{}}" text-anchor="middle">{escape(BETWEEN[number])}</text>'
    if number % 3 < 2:  # noqa: PLR2004 - the last of a row goes down
        middle = y + HEIGHT // 2
        start = x + WIDTH
        line = f'<path d="M{start} {middle}h{GAP - 6}m-6 -5l6 5l-6 5"/>'
        return line + carried.format(start + GAP // 2, middle - 10)
    bottom = y + HEIGHT
    back = -(2 * (WIDTH + GAP))
    line = f'<path d="M{x + WIDTH // 2} {bottom}v{GAP // 2}h{back}v{GAP // 2 - 4}m-5 -6l5 6l5 -6"/>'
    return line + carried.format(x - WIDTH // 2, bottom + GAP // 2 - 4)


def main() -> None:
    """Write both."""
    directory = Path(sys.argv[1])
    (directory / "hops.md").write_text(page(), encoding="utf-8")
    (directory / "hops.svg").write_text(picture(), encoding="utf-8")


if __name__ == "__main__":
    main()
