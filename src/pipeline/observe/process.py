"""What a process tells of itself, at `/metrics` of METRICS_PORT: what it has done, and how long a server has been away.

Counting costs nothing to speak of, and Prometheus' client is only imported where somebody asks. Who asks is a thread of
its own, so what the others change meanwhile is copied first.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING
from weakref import WeakSet

from pipeline.observe.gauges import OF_A_PROCESS, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, Protocol

    class Waiting(Protocol):
        """Something that waits for a server."""

        meanwhile: str

        @property
        def since(self) -> float | None:
            """Since when, by the monotonic clock; None if it does not wait."""


PORT = "METRICS_PORT"
_done: Counter[str] = Counter()
_waiting: WeakSet[Waiting] = WeakSet()
_watching = threading.Lock()  # a WeakSet that grows cannot be read


def done(what: str, times: int = 1) -> None:
    """Count what was done, in words such as "events handled"."""
    _done[what] += times


def watch(one: Waiting) -> None:
    """Tell of this for as long as it is there: `since` when, by the monotonic clock, it has been waiting."""
    with _watching:
        _waiting.add(one)


class _Telling:
    """What `prometheus_client` asks at each scrape."""

    def collect(self) -> Iterable[Any]:
        """All of it."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415 - see above

        counts = CounterMetricFamily("pipeline_done", "What this process has done.", labels=["what"])
        for what, times in dict(_done).items():
            counts.add_metric([what], times)
        yield counts
        longest = _longest()
        for name, value in (("breaker_open", bool), ("waiting_seconds", float)):
            about = OF_A_PROCESS[name]
            family = GaugeMetricFamily(PREFIX + name, about.about, labels=about.labels)
            for meanwhile, seconds in longest.items():
                family.add_metric([meanwhile], value(seconds))
            yield family


def _longest() -> dict[str, float]:
    """For how many seconds a server has been away, by what becomes of the work meanwhile."""
    found: dict[str, float] = {}
    with _watching:
        watched = list(_waiting)
    for one in watched:
        since = one.since  # whose thread may end the wait between two looks
        waited = time.monotonic() - since if since is not None else 0.0
        found[one.meanwhile] = max(waited, found.get(one.meanwhile, 0.0))
    return found


def expose() -> None:
    """Answer at METRICS_PORT, if that is set, on 127.0.0.1; a port that cannot be had ends the process."""
    if not (port := os.environ.get(PORT)):
        return
    from prometheus_client import PLATFORM_COLLECTOR, PROCESS_COLLECTOR, CollectorRegistry, start_http_server  # noqa: PLC0415

    registry = CollectorRegistry()
    for collector in (PROCESS_COLLECTOR, PLATFORM_COLLECTOR, _Telling()):
        registry.register(collector)
    try:
        start_http_server(int(port), "127.0.0.1", registry)
    except (OSError, ValueError, OverflowError) as why:
        sys.exit(f"pipeline: {PORT}={port} is no port that we can listen on: {why}")
