"""The gateway's log is the truth about charges."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pipeline.gateway.ledger import DECLINED_AMOUNT, Charge, Ledger

if TYPE_CHECKING:
    from pathlib import Path

CHARGE = Charge("order-1", 1999, "EUR")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the ledger is."""
    return tmp_path / "charges.jsonl"


def lines(path: Path) -> list[dict[str, object]]:
    """What is on disk."""
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_request_is_a_line(path: Path) -> None:
    """Each request is one line, numbered from 1, and what is returned is what is written."""
    ledger = Ledger(path)
    records = [ledger.charge("a", CHARGE), ledger.charge("b", CHARGE), ledger.charge("a", CHARGE)]
    assert lines(path) == records
    assert [record["n"] for record in records] == [1, 2, 3]
    assert list(records[0]) == ["n", "at", "key", "order_id", "amount", "currency", "effect", "reply"]


def test_a_key_takes_effect_once(path: Path) -> None:
    """The first request of a key charges, its repetitions answer 200 and charge nothing."""
    ledger = Ledger(path)
    outcomes = [(r["reply"], r["effect"]) for r in (ledger.charge("a", CHARGE) for _ in range(3))]
    assert outcomes == [(201, True), (200, False), (200, False)]


def test_a_key_stands_for_one_charge(path: Path) -> None:
    """The same key with another amount is refused with 422, and the key still stands for the first."""
    ledger = Ledger(path)
    ledger.charge("a", CHARGE)
    refused = ledger.charge("a", CHARGE._replace(amount=1))
    assert (refused["reply"], refused["effect"]) == (422, False)
    assert ledger.charge("a", CHARGE)["reply"] == 200


def test_a_refusal_is_an_outcome_too(path: Path) -> None:
    """A declined card is declined again for the same key, and no money ever moves."""
    ledger = Ledger(path)
    charge = CHARGE._replace(amount=DECLINED_AMOUNT)
    assert [(r["reply"], r["effect"]) for r in (ledger.charge("a", charge), ledger.charge("a", charge))] == [
        (402, False),
        (402, False),
    ]


def test_a_restart_remembers(path: Path) -> None:
    """A new process on the same file knows every key and goes on counting."""
    Ledger(path).charge("a", CHARGE)
    again = Ledger(path)
    record = again.charge("a", CHARGE)
    assert (record["n"], record["reply"], record["effect"]) == (2, 200, False)
    assert again.of_order("order-1") == lines(path)


@pytest.mark.parametrize("kept", [1, 20, -1])
def test_a_torn_line_is_cut_off(path: Path, kept: int, caplog: pytest.LogCaptureFixture) -> None:
    """A line that its writer did not finish was answered to nobody: it is removed, and the log says so."""
    ledger = Ledger(path)
    ledger.charge("a", CHARGE)
    whole = path.read_bytes()
    ledger.charge("b", CHARGE)
    path.write_bytes(whole + path.read_bytes()[len(whole) :][:kept])
    again = Ledger(path)
    assert path.read_bytes() == whole
    assert "torn line" in caplog.text
    record = again.charge("b", CHARGE)
    assert (record["n"], record["reply"], record["effect"]) == (2, 201, True)
    assert len(lines(path)) == 2
