"""`python -m pipeline observe`: the gauges of the whole pipeline, in Prometheus' format, at `/metrics`.

They are read when they are asked for, so they are as old as the answer. Who has not answered within 1.5 s is down, and
so is who fails, in whatever way; what it has answered before that is told, and so are the others. A process of its own,
as who is dead gives no alarm; it needs no hop to be alive.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from pipeline.observe import postgres
from pipeline.observe.dead import DeadLetters
from pipeline.observe.gauges import GAUGES, PREFIX
from pipeline.observe.kafka import Groups
from pipeline.runtime import Outage, Stop, Unavailable, begin
from pipeline.settings import ObserveSettings, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from pipeline.observe.postgres import Reading

log = logging.getLogger(__name__)

REST_S = 3600.0
PATIENCE_S = 1.5


class Answer(NamedTuple):
    """What a source has answered, and why that is not all, if it is not."""

    found: list[Reading]
    why: Exception | None


class Source:
    """Somebody who is asked for gauges, by a thread of its own: one question at a time, however long it takes."""

    def __init__(self, name: str, read: Callable[[], Iterable[Reading]]) -> None:
        self.name = name
        self._read = read
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._outage = Outage("Its gauges are absent; trying again")
        self._explained = False  # in this outage, what nobody has foreseen
        self._lock = threading.Lock()
        self._asked: Future[Answer] = self._thread.submit(Answer, [], None)

    def ask(self) -> Future[Answer]:
        """Begin to read, unless that goes on since an earlier time."""
        with self._lock:
            if self._asked.done():
                self._asked = self._thread.submit(self._answer)
            return self._asked

    def told(self, asked: Future[Answer], deadline: float) -> list[Reading]:
        """What was read by then, in monotonic seconds, and whether that is all."""
        try:
            found, why = asked.result(max(0.0, deadline - time.monotonic()))
        except NotYet:
            found, why = [], Unavailable(self.name, f"no answer within {PATIENCE_S:g} s")
        if why is None:
            self._outage.over()
            self._explained = False
        else:
            if not isinstance(why, Unavailable) and not self._explained:
                log.error("%s: %r", self.name, why, exc_info=why)
                self._explained = True
            self._outage.tell(why if isinstance(why, Unavailable) else f"{self.name}: {why!r}")
        return [*found, ("source_up", (self.name,), float(why is None))]

    def _answer(self) -> Answer:
        found: list[Reading] = []
        try:
            for reading in self._read():
                found.append(reading)  # noqa: PERF402 - what there is by the time of a failure is told
        except Exception as why:  # noqa: BLE001 - whatever it is, the others' gauges must not end with it
            return Answer(found, why)
        return Answer(found, None)


class Gauges(Collector):
    """What `prometheus_client` asks at each scrape."""

    def __init__(self, settings: ObserveSettings, source: type[Source] = Source) -> None:
        groups, dead = Groups(settings), DeadLetters(settings)
        self._sources = [
            source("postgres", lambda: postgres.readings(settings)),
            source("kafka", groups.readings),
            source("dead letters", dead.readings),
        ]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """All gauges that are known now."""
        deadline = time.monotonic() + PATIENCE_S
        asked = [(source, source.ask()) for source in self._sources]
        found = [reading for source, future in asked for reading in source.told(future, deadline)]
        for name, gauge in GAUGES.items():
            family = GaugeMetricFamily(PREFIX + name, gauge.about, labels=gauge.labels)
            for told, labels, value in found:
                if told == name:
                    family.add_metric(labels, value)
            if family.samples:
                yield family

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: to be registered must not ask the servers."""
        return []


def run(source: type[Source] = Source) -> None:
    """Answer until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("observe")
    settings, stop = load(ObserveSettings), Stop()
    registry = CollectorRegistry()
    registry.register(Gauges(settings, source))
    server, thread = start_http_server(settings.port, "127.0.0.1", registry)
    while not stop.asked:
        stop.wait(REST_S)
    server.shutdown()
    thread.join()


def main() -> None:
    """Answer until SIGTERM."""
    run()
