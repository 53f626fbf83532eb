"""The gateway over HTTP: what it answers, and what is in its logs then."""

from __future__ import annotations

import json
import select
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING, Any

import pytest

from pipeline.gateway.ledger import DECLINED_AMOUNT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.pipeline.workers import Start, Worker

ORDER = {"order_id": "o-1", "amount": 1999, "currency": "EUR"}


def post(gateway: Worker, path: str, key: str, **changed: object) -> tuple[int, Any]:
    """Status and body of a reply."""
    status, _, reply = gateway.ask("POST", path, json.dumps(ORDER | changed).encode(), Idempotency_Key=key)
    return status, json.loads(reply)


def effects(path: Path) -> list[tuple[str, int]]:
    """Key and amount of each movement of money in a log."""
    return [(one["key"], one["amount"]) for one in map(json.loads, path.read_text().splitlines()) if one["effect"]]


def test_a_refund_takes_effect_once(gateway: Worker, tmp_path: Path) -> None:
    """A key refunds once, whatever the number of requests; it stands for that refund alone."""
    assert post(gateway, "/charges", "a") == (201, {"key": "a", "state": "charged", **ORDER})
    assert post(gateway, "/refunds", "b") == (201, {"key": "b", "state": "refunded", **ORDER})
    assert post(gateway, "/refunds", "b") == (200, {"key": "b", "state": "refunded", **ORDER})
    assert post(gateway, "/refunds", "b", amount=1)[0] == 422
    assert effects(tmp_path / "charges.refunds.jsonl") == [("b", 1999)]
    assert effects(tmp_path / "charges.jsonl") == [("a", 1999)]
    told = json.loads(gateway.ask("GET", "/refunds?order_id=o-1")[2])
    assert [(one["reply"], one["effect"]) for one in told] == [(201, True), (200, False), (422, False)]


def test_nobody_is_given_what_was_not_charged(gateway: Worker, tmp_path: Path) -> None:
    """More than was charged is not refunded, in all; the refusal binds nobody, as a charge may be on its way."""
    assert post(gateway, "/refunds", "early") == (
        409,
        {"error": "Of this order 0 EUR can be refunded, in minor units."},
    )
    assert post(gateway, "/charges", "declined", amount=DECLINED_AMOUNT)[0] == 402
    assert post(gateway, "/refunds", "early")[0] == 409, "a declined card has paid nothing"
    assert post(gateway, "/charges", "a")[0] == 201
    assert post(gateway, "/refunds", "other", currency="USD")[0] == 409
    assert post(gateway, "/refunds", "another", order_id="o-2")[0] == 409
    assert post(gateway, "/refunds", "part", amount=999)[0] == 201
    assert post(gateway, "/refunds", "early")[0] == 409
    assert post(gateway, "/refunds", "rest", amount=1000)[0] == 201
    assert post(gateway, "/refunds", "more", amount=1)[0] == 409
    assert post(gateway, "/refunds", "part", amount=999)[0] == 200, "what was done is still known"
    assert effects(tmp_path / "charges.refunds.jsonl") == [("part", 999), ("rest", 1000)]


def test_a_restart_remembers_refunds(start: Start, gateway: Worker, tmp_path: Path) -> None:
    """A new process on the same logs refunds nothing again."""
    post(gateway, "/charges", "a")
    post(gateway, "/refunds", "b")
    gateway.ended()
    again = start("gateway", PORT=gateway.port, LEDGER=tmp_path / "charges.jsonl").listening()
    assert post(again, "/refunds", "b")[0] == 200
    assert post(again, "/refunds", "c")[0] == 409


@pytest.mark.parametrize("path", ["/charges", "/refunds"])
@pytest.mark.parametrize(
    ("key", "changed"),
    [("", {}), ("a", {"amount": "1999"}), ("a", {"more": 1}), ("a", {"amount": 0}), ("a", {"order_id": None})],
)
def test_what_is_no_request_leaves_no_trace(
    gateway: Worker, tmp_path: Path, path: str, key: str, changed: dict[str, object]
) -> None:
    """A request without a key, or with a body that is none, is answered 400 and is not in the log."""
    status, told = post(gateway, path, key, **changed)
    assert (status, list(told)) == (400, ["error"])
    assert (tmp_path / "charges.jsonl").read_text() == (tmp_path / "charges.refunds.jsonl").read_text() == ""


@pytest.mark.slow
def test_a_quiet_connection_is_kept(gateway: Worker) -> None:
    """Whoever asks every few seconds is not hung up on just then; uvicorn alone hangs up after five."""
    with closing(HTTPConnection("127.0.0.1", int(str(gateway.port)), timeout=20)) as connection:
        connection.request("GET", "/refunds?order_id=o-1")
        connection.getresponse().read()
        hung_up, _, _ = select.select([connection.sock], [], [], 7)
    assert not hung_up
