"""The dashboard for Grafana, made of what the gauges declare: the four signals first, then a row for each hop.

`python -m pipeline.observe.dashboard > src/pipeline/observe/dashboard.json`; a test compares the two. In Grafana:
import the file, and choose the Prometheus that scrapes `python -m pipeline observe`; for the last row, each process's
METRICS_PORT, too.
"""

from __future__ import annotations

import json
import re
import sys
from math import isfinite
from typing import Any

from pipeline.observe.gauges import GAUGES, HOPS, OF_A_PROCESS, PREFIX, Gauge

WIDTH, ACROSS, HEIGHT = 24, 4, 7  # Grafana's grid
UNITS = {"seconds": "s", "bytes": "bytes"}
SOURCE = {"type": "prometheus", "uid": "${prometheus}"}


def dashboard() -> dict[str, Any]:
    """As Grafana imports it."""
    rows = {"The four signals": [name for name, gauge in GAUGES.items() if gauge.signal]}
    for hop in ("observe", *HOPS):
        rows[hop.capitalize()] = [name for name, gauge in GAUGES.items() if gauge.hop == hop and not gauge.signal]
    rows["Each process"] = [*OF_A_PROCESS]
    panels: list[dict[str, Any]] = []
    top = 0
    for title, names in rows.items():
        if not names:
            continue
        panels.append({"type": "row", "title": title, "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}})
        for number, name in enumerate(names):
            down, right = divmod(number, ACROSS)
            at = {"x": right * WIDTH // ACROSS, "y": top + 1 + down * HEIGHT, "w": WIDTH // ACROSS, "h": HEIGHT}
            panels.append(panel(name, (GAUGES | OF_A_PROCESS)[name]) | {"gridPos": at})
        top += 1 + -(-len(names) // ACROSS) * HEIGHT
    choice = {"name": "prometheus", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    return {
        "uid": "onecharge-pipeline",
        "title": "The order pipeline",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [choice]},
        "panels": [one | {"id": number} for number, one in enumerate(panels, 1)],
    }


def panel(name: str, gauge: Gauge) -> dict[str, Any]:
    """One gauge over time; what is trouble is red, and a line shows where that begins."""
    steps: list[dict[str, Any]] = [{"color": "red" if isfinite(gauge.below) else "green", "value": None}]
    if isfinite(gauge.below):
        steps.append({"color": "green", "value": gauge.below})
    if isfinite(gauge.above):
        steps.append({"color": "red", "value": gauge.above})
    red = {"mode": "absolute", "steps": steps}
    line = {"mode": "dashed" if len(steps) > 1 else "off"}
    everywhere: dict[str, Any] = {"unit": UNITS.get(name.rpartition("_")[2], "short")}
    overrides = []
    if gauge.only:
        which = {"id": "byRegexp", "options": f"/(^| )({'|'.join(map(re.escape, gauge.only))})$/"}
        told = [{"id": "thresholds", "value": red}, {"id": "custom.thresholdsStyle", "value": line}]
        overrides = [{"matcher": which, "properties": told}]
        red, line = {"mode": "absolute", "steps": [{"color": "green", "value": None}]}, {"mode": "off"}
    everywhere |= {"thresholds": red, "custom": {"thresholdsStyle": line, "showPoints": "never"}}
    labels = ("instance", *gauge.labels) if name in OF_A_PROCESS else gauge.labels
    legend = " ".join(f"{{{{{label}}}}}" for label in labels)
    return {
        "type": "timeseries",
        "title": name.replace("_", " "),
        "description": gauge.about,
        "datasource": SOURCE,
        "targets": [{"refId": "A", "expr": PREFIX + name, "legendFormat": legend or name, "datasource": SOURCE}],
        "fieldConfig": {"defaults": everywhere, "overrides": overrides},
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=1)
    sys.stdout.write("\n")
