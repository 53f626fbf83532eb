"""POST /orders against a real Postgres: accepted once, or refused without a trace."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from pipeline.write.openapi import DESCRIPTION
from tests.pipeline.workers import TRACEPARENT, Start, Worker, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane

ORDER = {"customer_id": "c-1", "sku": "sku-1", "quantity": 2, "amount": 1999, "currency": "EUR"}
JSON = "application/json"


def post(api: Worker, body: object, **headers: str) -> tuple[int, dict[str, str], Any]:
    """POST /orders with a new key unless `headers` say otherwise; the reply, one of those described, decoded."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    defaults = {"Content_Type": JSON, "Idempotency_Key": str(uuid4())}
    status, got, reply = api.ask("POST", "/orders", raw, **defaults | headers)
    told = DESCRIPTION["paths"]["/orders"]["post"]["responses"][str(status)]
    assert got["content-type"] in told["content"]
    assert {name.lower() for name in told.get("headers", ())} <= got.keys()
    return status, got, json.loads(reply)


def rows(db: psycopg.Connection) -> list[int]:
    """How many rows orders, outbox and idempotency_keys have."""
    query = (
        "select (select count(*) from orders), (select count(*) from outbox), (select count(*) from idempotency_keys)"
    )
    return list(db.execute(query).fetchone() or ())


def test_an_order_is_accepted_with_its_event(api: Worker, db: psycopg.Connection) -> None:
    """A 202 means that the order, its event and the answer for its key are durable."""
    status, headers, reply = post(api, ORDER)
    assert (status, headers["content-type"]) == (202, JSON)
    assert reply == {"order_id": reply["order_id"], "state": "pending"}
    assert len(reply["order_id"]) == 36
    assert db.execute(
        "select order_id, customer_id, sku, quantity, amount, currency, state from orders"
    ).fetchall() == [(reply["order_id"], "c-1", "sku-1", 2, 1999, "EUR", "pending")]
    [(event, traceparent, *columns)] = db.execute(
        "select payload, traceparent, event_id::text, order_id, seq, type from outbox_pending"
    ).fetchall()
    assert [event.pop(name) for name in ("event_id", "order_id", "seq", "type")] == columns
    assert columns[1:] == [reply["order_id"], 1, "order.placed"]
    assert event == ORDER
    assert traceparent.startswith("00-")
    assert rows(db) == [1, 1, 1]


@pytest.mark.parametrize(
    ("status", "field", "body", "headers"),
    [
        pytest.param(422, "sku", {name: ORDER[name] for name in ORDER if name != "sku"}, {}, id="missing field"),
        pytest.param(422, "amount", ORDER | {"amount": -1}, {}, id="negative amount"),
        pytest.param(422, "amount", ORDER | {"amount": "12"}, {}, id="wrong type"),
        pytest.param(422, "customer_id", ORDER | {"customer_id": "\0"}, {}, id="NUL"),
        pytest.param(422, "coupon", ORDER | {"coupon": "x"}, {}, id="unknown field"),
        pytest.param(422, r"\ud800", rb'{"\ud800": 1, "\ud800": 2}', {}, id="a name in no encoding"),
        pytest.param(400, "body", b'{"customer_id": ', {}, id="malformed JSON"),
        pytest.param(400, "body", b"", {}, id="no body"),
        pytest.param(400, "Idempotency-Key", ORDER, {"Idempotency_Key": ""}, id="missing key"),
        pytest.param(413, "body", b'{"customer_id": "%s"}' % (b"x" * 1_000_000), {}, id="1 MB"),
        pytest.param(415, "Content-Type", ORDER, {"Content_Type": "text/plain"}, id="wrong content type"),
    ],
)
def test_bad_input_leaves_no_trace(  # noqa: PLR0917 - pytest passes by name
    api: Worker, db: psycopg.Connection, status: int, field: str, body: object, headers: dict[str, str]
) -> None:
    """Bad input is a problem document that names the field, and no row is written."""
    got, reply_headers, problem = post(api, body, **headers)
    assert (got, reply_headers["content-type"]) == (status, "application/problem+json")
    assert problem["status"] == status
    assert [error["field"] for error in problem["errors"]] == [field]
    assert all(error["detail"] for error in problem["errors"])
    assert rows(db) == [0, 0, 0]


def test_an_endless_body_is_refused_while_it_is_read(api: Worker, db: psycopg.Connection) -> None:
    """A chunked body that never ends is answered as soon as it is too large."""
    fields = ["Host: x", f"Content-Type: {JSON}", "Idempotency-Key: k", "Transfer-Encoding: chunked"]
    head = "\r\n".join(["POST /orders HTTP/1.1", *fields, "", ""])
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    with socket.create_connection(("127.0.0.1", int(str(api.port)))) as client:
        client.sendall(head.encode() + 65 * chunk)  # and no last chunk
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    assert rows(db) == [0, 0, 0]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/orders", 405), ("POST", "/order", 404), ("POST", "/orders/", 404)]
)
def test_other_errors_are_problems_too(api: Worker, method: str, path: str, status: int) -> None:
    """A wrong path or method is answered in the same form."""
    got, headers, problem = api.ask(method, path)
    assert (got, headers["content-type"], json.loads(problem)["errors"]) == (status, "application/problem+json", [])


def test_a_trace_goes_with_the_event(api: Worker, db: psycopg.Connection) -> None:
    """The event is stored with the client's traceparent; asking again, within another trace, changes nothing."""
    again = "00-11111111111111111111111111111111-2222222222222222-01"
    for traceparent in (TRACEPARENT, again):
        assert post(api, ORDER, Idempotency_Key="k", traceparent=traceparent)[0] == 202
    assert db.execute("select traceparent from outbox").fetchall() == [(TRACEPARENT,)]


def test_the_same_key_is_the_same_order(api: Worker, db: psycopg.Connection) -> None:
    """A repeated request gets the stored answer, byte for byte, and adds no row."""
    replies = [api.ask("POST", "/orders", json.dumps(ORDER), Content_Type=JSON, Idempotency_Key="k") for _ in range(3)]
    assert {(status, body) for status, _, body in replies} == {(202, replies[0][2])}
    assert rows(db) == [1, 1, 1]


def test_a_key_cannot_be_used_for_another_order(api: Worker, db: psycopg.Connection) -> None:
    """The same key with another payload is a 422 that names the key, and adds no row."""
    assert post(api, ORDER, Idempotency_Key="k")[0] == 202
    status, _, problem = post(api, ORDER | {"amount": 2000}, Idempotency_Key="k")
    assert (status, problem["errors"][0]["field"]) == (422, "Idempotency-Key")
    assert rows(db) == [1, 1, 1]


def test_duplicates_at_the_same_time_are_one_order(api: Worker, db: psycopg.Connection) -> None:
    """Of many simultaneous requests with one key all that are accepted are told the same order."""
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: post(api, ORDER, Idempotency_Key="k"), range(32)))
    assert {status for status, _, _ in replies} <= {202, 409}
    assert len({reply["order_id"] for status, _, reply in replies if status == 202}) == 1
    assert rows(db) == [1, 1, 1]


@pytest.fixture
def busy_key(lane: Lane) -> Iterator[str]:
    """A key whose first request is in progress and stays so."""
    with psycopg.connect(lane.postgres) as first:
        first.execute("insert into idempotency_keys values ('busy', 'fingerprint', 'reply')")
        yield "busy"
        first.rollback()


@pytest.mark.usefixtures("db")
def test_a_key_in_progress_is_a_conflict(api: Worker, busy_key: str) -> None:
    """While the first request of a key has no outcome, a second one is told 409 in bounded time."""
    status, _, problem = post(api, ORDER, Idempotency_Key=busy_key)
    assert (status, problem["errors"][0]["field"]) == (409, "Idempotency-Key")


def test_without_postgres_it_says_when_to_ask_again(start: Start) -> None:
    """An unreachable database is a 503 with Retry-After; the process itself is healthy, and ends orderly."""
    nowhere = f"postgresql://postgres@127.0.0.1:{free_port()}/postgres"
    api = start("api", DATABASE_URL=nowhere, PORT=free_port()).listening()
    status, headers, problem = post(api, ORDER)
    assert (status, headers["retry-after"], problem["status"]) == (503, "1", 503)
    assert api.said(r"Postgres at 127.0.0.1:\d+/postgres.*Orders are answered 503; trying again")
    assert api.ask("GET", "/healthz")[0] == 200
    assert api.ended() == 0


def test_a_postgres_that_takes_nothing_is_away(start: Start, lane: Lane, db: psycopg.Connection) -> None:
    """One that is read-only, as a standby is after a failover, is a 503, too: there, asking again is of use."""
    standby = make_conninfo(lane.postgres, options="-c default_transaction_read_only=on")
    api = start("api", DATABASE_URL=standby, PORT=free_port()).listening()
    assert post(api, ORDER)[0] == 503
    assert rows(db) == [0, 0, 0]
