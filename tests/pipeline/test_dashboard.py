"""The dashboard in the repository shows what the gauges declare."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pipeline
from pipeline.observe.dashboard import WIDTH, dashboard
from pipeline.observe.gauges import GAUGES, OF_A_PROCESS, PREFIX

FILE = Path(pipeline.__file__).with_name("observe") / "dashboard.json"


def test_the_file_is_what_is_declared() -> None:
    """`python -m pipeline.observe.dashboard` makes the file as it is, with each gauge in one panel."""
    made = dashboard()
    assert json.loads(FILE.read_text(encoding="utf-8")) == made
    shown = [target["expr"] for panel in made["panels"] for target in panel.get("targets", [])]
    assert sorted(shown) == sorted(PREFIX + name for name in GAUGES | OF_A_PROCESS)


def test_what_is_red() -> None:
    """Where only some of a gauge's values can be trouble, the others are not shown as such."""
    panels = {panel["title"]: panel for panel in dashboard()["panels"]}
    field = panels["slot status"]["fieldConfig"]
    assert [step["color"] for step in field["defaults"]["thresholds"]["steps"]] == ["green"]
    [override] = field["overrides"]
    which = re.compile(override["matcher"]["options"].strip("/"))
    assert [status for status in ("reserved", "extended", "unreserved", "lost") if which.search(f"s {status}")] == [
        "unreserved",
        "lost",
    ]
    assert override["properties"][0]["value"]["steps"][-1] == {"color": "red", "value": 0}


def test_nothing_is_on_top_of_anything() -> None:
    """Each panel is within the page, in a place of its own, with a number of its own."""
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = list(itertools.chain.from_iterable(map(covered, panels)))
    assert len(set(cells)) == len(cells)
    assert all(x < WIDTH for x, _ in cells)


def covered(panel: dict[str, dict[str, int]]) -> list[tuple[int, int]]:
    """The cells of the page that it takes."""
    at = panel["gridPos"]
    return [(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])]
