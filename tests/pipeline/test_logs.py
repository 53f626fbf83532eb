"""What a worker logs: for people, for machines, and an order's way through all hops by its trace."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.pipeline.test_api import JSON, ORDER
from tests.pipeline.workers import TRACEPARENT, Start, free_port, until

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from chaos import Lane


def test_a_way_by_its_trace(start: Start, lane: Lane, namespace: str, db: psycopg.Connection, tmp_path: Path) -> None:
    """At DEBUG each hop says of an event, with the client's trace, that it has let it pass."""
    db.execute("truncate stock, reservations, mails, parked_orders, parked_events")
    db.execute("insert into stock values ('sku-1', 10)")
    gateway = start("gateway", PORT=free_port(), LEDGER=tmp_path / "charges.jsonl").listening()
    env = {
        "DATABASE_URL": lane.postgres,
        "KAFKA_BOOTSTRAP_SERVERS": lane.kafka,
        "NAMESPACE": namespace,
        "GATEWAY_URL": f"http://127.0.0.1:{gateway.port}",
        "LOG_LEVEL": "DEBUG",
        "LOG_FORMAT": "json",
    }
    workers = [start(name, **env) for name in ("relay", "payment", "inventory", "notification")]
    api = start("api", **env, PORT=free_port()).listening()
    api.ask("POST", "/orders", json.dumps(ORDER), Content_Type=JSON, Idempotency_Key="k", traceparent=TRACEPARENT)
    until(lambda: db.execute("select 1 from orders where state = 'confirmed'").fetchone())

    def way() -> set[tuple[str, str]]:
        lines = [json.loads(line) for worker in (api, *workers) for line in worker.log.splitlines()]
        of_ours = [line for line in lines if line.get("traceparent") == TRACEPARENT]
        assert len({line["order_id"] for line in of_ours}) <= 1
        return {(line["worker"], str(line["event"]).rpartition(" ")[2]) for line in of_ours}

    wanted = {("api", "accepted"), ("relay", "published")}
    wanted |= {(group, "handled") for group in ("payment", "inventory", "notification")}
    until(lambda: way() == wanted)


def test_for_people(start: Start, lane: Lane) -> None:
    """A line has a time, the worker, the level and a sentence."""
    api = start("api", DATABASE_URL=f"postgresql://x@127.0.0.1:{free_port()}/x", PORT=free_port()).listening()
    api.ask("POST", "/orders", json.dumps(ORDER), Content_Type=JSON, Idempotency_Key="k")
    assert api.said(r"(?m)^20\d\d-\d\d-\d\dT[\d:.]+Z api WARNING .*Orders are answered 503; trying again\.$")
    assert lane.postgres not in api.log


def test_a_level_that_is_empty(start: Start, lane: Lane) -> None:
    """`LOG_LEVEL=` in a script means that it is not set."""
    start("api", DATABASE_URL=lane.postgres, PORT=free_port(), LOG_LEVEL="").listening()


def test_a_level_that_is_none(start: Start, lane: Lane) -> None:
    """A level that there is not is said in one line, and ends the worker."""
    api = start("api", DATABASE_URL=lane.postgres, PORT=free_port(), LOG_LEVEL="loud")
    assert until(lambda: api.process.exit).status == 1
    assert api.log.splitlines() == ["pipeline: LOG_LEVEL=loud is no level to log at: Unknown level: 'LOUD'"]
