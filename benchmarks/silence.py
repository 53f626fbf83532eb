"""Minutes of orders at a steady rate, with nothing broken, under a real Prometheus with the rules as they are shipped.

The relay reads the log, and Postgres keeps no more of it for a slot than it is told, so that the rules about slots have
something to look at. What fired is asked of Prometheus at the end, for every evaluation of the rules in that time. Each
gauge that a rule is about has to be there in nine scrapes of ten: a rule about nothing is silent whatever happens.

orders                so many were placed
order_s_p95           from an order to its outcome, of the last minute
fired                 alerts that fired, by name; 0
pending               alerts that were about to, for less time than it takes; these are noise, and do nobody harm
looks                 how often Prometheus has scraped
inputs                gauges, with the labels that rules ask for, that there were
input_least           the least of these was there in so many scrapes of one
oldest_transaction_s  the longest that a transaction was open
broken_fires_s        then a group's only member is killed: until its alert fires; so somebody was listening
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from chaos.waiting import Deadline, wait_until
from tests.fix_observed import PATIENCE_S, PER_S, RULES, observed

if TYPE_CHECKING:
    from tests.fix_observed import Prometheus, Site

KEPT = "256MB"  # for a slot; a fraction of that is what a healthy one needs
LATENCY = "pipeline_order_latency_seconds{quantile='0.95'}"
OLDEST = "pipeline_oldest_transaction_seconds"
ENOUGH = 0.9


def main() -> None:
    """Measure, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="default: 10")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="onecharge-") as directory,
        Session(Path(directory)) as session,
        observed(session, cdc=True, rules=str) as site,
    ):
        try:
            figures, seen = watched(site, 60 * options.minutes)
        finally:
            site.pipeline.processes["relay"].kill()  # or its slot could not be dropped
    report(figures, options.json)
    for state, names in seen.items():
        print(f"{state}: {', '.join(sorted(names)) or 'none'}")
    if figures["orders"] < 60 * options.minutes * PER_S / 2:
        sys.exit("fewer orders than half of what was meant: this was no load")
    if seen["absent"]:
        sys.exit("what rules are about was not there: that they were silent says nothing")
    sys.exit(bool(figures["fired"]))


def watched(site: Site, seconds: float) -> tuple[dict[str, float], dict[str, set[str]]]:
    """Let time pass in which nothing breaks, and then break something; what was seen."""
    site.lane.execute(f"alter system set max_slot_wal_keep_size = '{KEPT}'")
    site.lane.execute("select pg_reload_conf()")
    site.confirmed_s()
    inputs = rules()[1]
    wait_until("all gauges to be there", lambda: not absent(site.prometheus, inputs), Deadline(PATIENCE_S))
    [(before,)] = site.lane.execute("select count(*) from orders")
    began = time.monotonic()
    time.sleep(seconds)
    figures, seen = measured(site, time.monotonic() - began)
    [(after,)] = site.lane.execute("select count(*) from orders")
    began = time.monotonic()
    site.pipeline.processes["payment"].kill()
    site.fires("GroupVanished", within_s=120)
    return {"orders": after - before} | figures | {"broken_fires_s": time.monotonic() - began}, seen


def rules() -> tuple[list[str], list[str]]:
    """The alerts' names, and the selectors of the gauges that they are about."""
    text = RULES.read_text(encoding="utf-8")
    expressions = re.findall(r" expr: (.+)\n", text)
    inputs = {one for expression in expressions for one in re.findall(r"pipeline_\w+(?:{[^}]*})?", expression)}
    return re.findall(r"- alert: (\w+)", text), sorted(inputs)


def absent(prometheus: Prometheus, inputs: list[str]) -> list[str]:
    """Those that are not there now."""
    return [one for one in inputs if prometheus.value(f"count({one})") is None]


def measured(site: Site, window_s: float) -> tuple[dict[str, float], dict[str, set[str]]]:
    """What Prometheus has seen in these last seconds: figures, and which alerts and which inputs they are about."""
    prometheus, window = site.prometheus, f"[{window_s:.0f}s]"
    alerts, inputs = rules()

    def was(alert: str, state: str) -> bool:
        series = f"ALERTS{{alertname='{alert}',alertstate='{state}'}}{window}"
        return prometheus.value(f"sum(count_over_time({series}))") is not None

    looks = prometheus.value(f"count_over_time(up{window})") or 0.0
    shares = {one: (prometheus.value(f"min(count_over_time({one}{window}))") or 0.0) / max(looks, 1) for one in inputs}
    seen = {"fired": {one for one in alerts if was(one, "firing")}}
    seen["pending"] = {one for one in alerts if was(one, "pending")} - seen["fired"]
    seen["absent"] = {one for one, share in shares.items() if share < ENOUGH}
    figures = {"fired": float(len(seen["fired"])), "pending": float(len(seen["pending"])), "looks": looks}
    figures |= {"inputs": float(len(inputs)), "input_least": min(shares.values())}
    latency, oldest = prometheus.value(LATENCY), prometheus.value(f"max_over_time({OLDEST}{window})")
    if latency is not None and oldest is not None:  # or it is in `absent`, and no figure
        figures |= {"order_s_p95": latency, "oldest_transaction_s": oldest}
    return figures, seen


if __name__ == "__main__":
    main()
