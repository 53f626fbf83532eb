"""The payment consumer with a real gateway: one order, one charge."""

from __future__ import annotations

import json
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from chaos.waiting import Deadline
from tests.pipeline.workers import free_port, until

if TYPE_CHECKING:
    from pathlib import Path

    import psycopg

    from chaos import Lane
from tests.pipeline.workers import Start, Worker


@pytest.fixture
def env(lane: Lane, namespace: str, gateway: Worker) -> dict[str, object]:
    """What a payment worker is told."""
    return {
        "DATABASE_URL": lane.postgres,
        "KAFKA_BOOTSTRAP_SERVERS": lane.kafka,
        "NAMESPACE": namespace,
        "GATEWAY_URL": f"http://127.0.0.1:{gateway.port}",
        "GROUP_INSTANCE_ID": "payment-0",
    }


def event(db: psycopg.Connection, amount: int = 1999) -> dict[str, object]:
    """An order was placed."""
    order_id = str(uuid4())
    insert = "insert into orders values (%s, 'c-1', 'sku-1', 1, %s, 'EUR')"
    db.execute(insert, [order_id, amount])
    identity = {"event_id": str(uuid4()), "type": "order.placed", "order_id": order_id, "seq": 1}
    return identity | {"customer_id": "c-1", "amount": amount, "currency": "EUR"}


def send(env: dict[str, object], *values: object) -> None:
    """Put these on partition 0 of the orders topic."""
    producer = Producer({"bootstrap.servers": str(env["KAFKA_BOOTSTRAP_SERVERS"])})
    for value in values:
        raw = value if isinstance(value, bytes) else json.dumps(value).encode()
        producer.produce(f"{env['NAMESPACE']}.orders", raw, partition=0)
    assert producer.flush(10) == 0


def offset(env: dict[str, object]) -> int:
    """What the payment group has committed on partition 0; negative if nothing."""
    group, topic = f"{env['NAMESPACE']}.payment", f"{env['NAMESPACE']}.orders"
    consumer = Consumer({"bootstrap.servers": str(env["KAFKA_BOOTSTRAP_SERVERS"]), "group.id": group})
    [partition] = consumer.committed([TopicPartition(topic, 0)], timeout=10)
    consumer.close()
    return partition.offset


def told(db: psycopg.Connection, order_id: object) -> Any:
    """What the order knows of its payment."""
    return (db.execute("select payment from orders where order_id = %s", [order_id]).fetchone() or [None])[0]


def charges(gateway: Worker, order_id: object) -> list[dict[str, Any]]:
    """What the gateway's ledger has about the order."""
    records: list[dict[str, Any]] = json.loads(gateway.ask("GET", f"/charges?order_id={order_id}")[2])
    return records


def test_an_order_is_charged(start: Start, db: psycopg.Connection, gateway: Worker, env: dict[str, object]) -> None:
    """A placed order is charged once, with the key derived from it, and recorded; then its offset is committed."""
    placed = event(db)
    payment = start("payment", **env)
    send(env, placed)
    until(lambda: told(db, placed["order_id"]) == "charged")
    [record] = charges(gateway, placed["order_id"])
    assert (record["effect"], record["reply"], record["amount"]) == (True, 201, 1999)
    assert record["key"] == sha256(f"{placed['order_id']}|charge".encode()).hexdigest()
    assert db.execute("select key, order_id, amount, currency, state from payments").fetchall() == [
        (record["key"], placed["order_id"], 1999, "EUR", "paid")
    ]
    assert payment.ended() == 0
    assert offset(env) == 1


def test_a_declined_card_fails_the_order(start: Start, db: psycopg.Connection, env: dict[str, object]) -> None:
    """A 402 is an answer: the order is told, and the next one goes on."""
    declined, paid = event(db, 40_200), event(db)
    start("payment", **env)
    send(env, declined, paid)
    until(lambda: told(db, paid["order_id"]) == "charged")
    assert told(db, declined["order_id"]) == "declined"
    assert db.execute("select state from payments order by recorded_at").fetchall() == [("declined",), ("paid",)]


def test_a_redelivered_event_is_recognised(
    start: Start, db: psycopg.Connection, gateway: Worker, env: dict[str, object]
) -> None:
    """An event that comes again does not even reach the gateway, and its offset is committed."""
    placed = event(db)
    start("payment", **env)
    send(env, placed, placed, placed)
    until(lambda: offset(env) == 3)
    assert len(charges(gateway, placed["order_id"])) == 1


def test_a_silent_gateway_holds_the_event(
    start: Start, db: psycopg.Connection, tmp_path: Path, env: dict[str, object]
) -> None:
    """While the gateway is away the event is neither skipped nor recorded, and the log says what is waited for."""
    placed, port = event(db), free_port()
    payment = start("payment", **env | {"GATEWAY_URL": f"http://127.0.0.1:{port}"})
    send(env, placed)
    assert payment.said(f"The gateway at http://127.0.0.1:{port}: ConnectionRefusedError.*Holding at this place")
    assert (offset(env), told(db, placed["order_id"])) == (-1001, None)
    start("gateway", PORT=port, LEDGER=tmp_path / "late.jsonl")
    until(lambda: told(db, placed["order_id"]) == "charged")
    assert payment.said("Back after")


def test_a_stolen_identity_ends_the_worker(start: Start, db: psycopg.Connection, env: dict[str, object]) -> None:
    """When a second process uses the same GROUP_INSTANCE_ID, the first one ends and says why."""
    placed, second = event(db), event(db)
    first = start("payment", **env)
    send(env, placed)
    until(lambda: told(db, placed["order_id"]) == "charged")
    start("payment", **env)
    assert first.process.wait(Deadline(20)).status == 1
    assert first.said("told this consumer to end")
    send(env, second)
    until(lambda: told(db, second["order_id"]) == "charged")
