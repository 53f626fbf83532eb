"""What a worker tells of itself at METRICS_PORT."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import prometheus_client.core
import pytest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from pipeline.observe import process
from tests.pipeline.test_api import JSON, ORDER
from tests.pipeline.workers import Start, Worker, free_port, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos import Lane


def told(worker: Worker, port: int, name: str) -> dict[str, float]:
    """The values of a metric by its label."""
    here, worker.port = worker.port, port
    text = worker.ask("GET", "/metrics")[2].decode()
    worker.port = here
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {"".join(sample.labels.values()): sample.value for sample in samples if sample.name == name}


def test_what_it_has_done(start: Start, lane: Lane) -> None:
    """What was done is counted, and the process tells what it needs."""
    port = free_port()
    api = start("api", DATABASE_URL=lane.postgres, PORT=free_port(), METRICS_PORT=port).listening()
    assert told(api, port, "pipeline_done_total") == {}
    for body in (json.dumps(ORDER), json.dumps(ORDER), "{"):
        api.ask("POST", "/orders", body, Content_Type=JSON, Idempotency_Key=str(uuid4()))
    assert told(api, port, "pipeline_done_total") == {"orders accepted": 2, "requests refused 400": 1}
    assert told(api, port, "process_resident_memory_bytes")[""] > 0


def test_what_it_waits_for(start: Start) -> None:
    """How long a server has been away is told, and what becomes of the work meanwhile."""
    port = free_port()
    nobody = f"postgresql://x@127.0.0.1:{free_port()}/x"
    api = start("api", DATABASE_URL=nobody, PORT=free_port(), METRICS_PORT=port).listening()
    waits = "Orders are answered 503; trying again"
    assert told(api, port, "pipeline_waiting_seconds") == told(api, port, "pipeline_breaker_open") == {waits: 0}
    api.ask("POST", "/orders", json.dumps(ORDER), Content_Type=JSON, Idempotency_Key="k")
    until(lambda: told(api, port, "pipeline_waiting_seconds")[waits] > 0.2)
    assert told(api, port, "pipeline_breaker_open") == {waits: 1}


def test_what_changes_while_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others count, or stop waiting for, meanwhile, does not end the answer."""

    class Fickle:
        meanwhile = "It rests"

        def __init__(self) -> None:
            self.looks = iter([time.monotonic()])

        @property
        def since(self) -> float | None:
            return next(self.looks, None)

    class Counts(CounterMetricFamily):
        def add_metric(self, labels: Sequence[str], value: float, *more: Any) -> None:
            super().add_metric(labels, value, *more)
            process.done(str(uuid4()))

    monkeypatch.setattr(prometheus_client.core, "CounterMetricFamily", Counts)
    process.done("something")
    fickle = Fickle()
    process.watch(fickle)
    found = {family.name: family for family in process._Telling().collect()}
    assert [*found] == ["pipeline_done", "pipeline_breaker_open", "pipeline_waiting_seconds"]
    assert {sample.labels["work"]: sample.value for sample in found["pipeline_breaker_open"].samples}["It rests"] == 1


@pytest.mark.parametrize("port", ["none", "99999"])
def test_no_port(start: Start, lane: Lane, port: str) -> None:
    """A port that cannot be had is said in one line, at the start."""
    api = start("api", DATABASE_URL=lane.postgres, PORT=free_port(), METRICS_PORT=port)
    assert api.said(rf"pipeline: METRICS_PORT={port} is no port that we can listen on")
    assert until(lambda: api.process.exit).status == 1
