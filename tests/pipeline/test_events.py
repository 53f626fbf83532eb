"""What is read of an event: what its type says, or what is wrong with it."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from pipeline.events import Confirmed, Event, Failed, ItemOrdered, ItemPriced, Malformed, Reader

ORDER: dict[str, Any] = {"event_id": str(uuid4()), "order_id": "o-1", "seq": 1}
GOODS = {"type": "order.placed", **ORDER, "sku": "a", "quantity": 1, "amount": 1999, "currency": "EUR"}
END = {"type": "order.failed", **ORDER, "customer_id": "c-1"}
OTHER = {"type": "order.seen", **ORDER}


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (GOODS, ItemOrdered),
        (END, Failed),
        (END | {"type": "order.confirmed"}, None),
        (OTHER, None),
        (OTHER | {"type": ""}, None),
        ({"meta": {"type": "order.failed"}} | GOODS, ItemOrdered),
        (GOODS | {"meta": {"type": "order.failed"}}, ItemOrdered),
        ({"meta": {"type": "order.placed"}} | OTHER, None),
        ({"sku": "a", "quantity": 1, **ORDER, "type": "order.placed"}, ItemOrdered),
        (GOODS | {"event_id": ORDER["event_id"].upper()}, ItemOrdered),
    ],
)
def test_what_an_event_is(event: dict[str, Any], expected: type[Event] | None) -> None:
    """It is what its type says, wherever that stands; what it says besides is none of our business."""
    assert type(Reader(ItemOrdered, Failed).read(json.dumps(event).encode())) is (expected or type(None))


@pytest.mark.parametrize("kinds", [(ItemOrdered,), (ItemPriced, Failed), (Confirmed, Failed)])
def test_readers_see_their_own(kinds: tuple[type[Event], ...]) -> None:
    """Each reader has its own view of an event, and none of what others want to know of it."""
    read = Reader(*kinds).read(json.dumps(GOODS).encode())
    assert read is None or type(read) is kinds[0]
    assert Reader(*kinds).read(json.dumps(OTHER).encode()) is None


WRONG: list[tuple[str, Any]] = [
    ("seq", 0),
    ("seq", 2**31),
    ("seq", 10**30),
    ("seq", "1"),
    ("seq", 1.0),
    ("seq", True),
    ("seq", None),
    ("order_id", ""),
    ("order_id", "x" * 101),
    ("order_id", "a\0"),
    ("order_id", "a\n"),
    ("order_id", 7),
    ("event_id", "a"),
    ("event_id", 7),
    ("quantity", 0),
    ("quantity", True),
    ("sku", "\x7f"),
    ("amount", 0),
    ("amount", 10**12 + 1),
    ("currency", "eur"),
    ("currency", "EUR\n"),
    ("type", 7),
    ("type", None),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_what_is_wrong_with_it(field: str, value: object) -> None:
    """A field that is wrong is named."""
    reader = Reader(ItemPriced if field in {"amount", "currency"} else ItemOrdered)
    with pytest.raises(Malformed, match=rf"\$\.{field}"):
        reader.read(json.dumps(GOODS | {field: value}).encode())


@pytest.mark.parametrize("field", ["event_id", "order_id", "seq", "sku", "quantity", "type"])
def test_what_is_missing(field: str) -> None:
    """So is one that is missing."""
    with pytest.raises(Malformed, match=f"`{field}`"):
        Reader(ItemOrdered).read(json.dumps({name: GOODS[name] for name in GOODS if name != field}).encode())


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{" * 100_000,
        b'{"a":' + b"[" * 100_000,
        json.dumps(GOODS).encode()[:-1],
        json.dumps(GOODS).encode() + b"x",
        json.dumps(GOODS).encode().replace(b"o-1", b"\xff"),
        json.dumps(GOODS).encode().replace(b"o-1", b"\\ud800"),
        json.dumps(OTHER).encode().replace(b"o-1", b"\xff"),
        json.dumps(GOODS).encode("utf-16"),
    ],
)
def test_what_is_no_event(value: bytes | None) -> None:
    """Whatever the bytes are, it is said that they are none."""
    with pytest.raises(Malformed):
        Reader(ItemOrdered).read(value)
