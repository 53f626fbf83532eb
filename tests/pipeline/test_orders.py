"""What an order is, without a server."""

from __future__ import annotations

import re
from http import HTTPStatus

import pytest

from pipeline.write.orders import check_key, parse
from pipeline.write.problems import Problem
from pipeline.write.tracing import trace

ORDER = b'{"customer_id": "c-1", "sku": "sku-1", "quantity": 2, "amount": 1999, "currency": "EUR"}'
MEMBERS = ["customer_id", "sku", "quantity", "amount", "currency"]
NUMBERS = [b"-1", b"0", b"1e3", b'"1"', b"true", b"null", b"1" + b"0" * 30, b"9" * 5000, b"NaN"]
NAMES = [b'"\\ud800"', b"7", b'""', b'"a\\u0000"', b'"' + b"x" * 101 + b'"']
CURRENCIES = [b'"eur"', b'"EURO"', b'"EUR\\n"']


def test_an_order() -> None:
    """The five members make an order."""
    assert parse(ORDER).model_dump() == dict(zip(MEMBERS, ("c-1", "sku-1", 2, 1999, "EUR"), strict=True))


def but(member: str, value: bytes) -> bytes:
    """The order with another value there."""
    return re.sub(rb'("%s": )[^,}]+' % member.encode(), rb"\g<1>" + value.replace(b"\\", rb"\\"), ORDER)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b"{}", MEMBERS),
        *((but(name, value), [name]) for name in ("quantity", "amount") for value in NUMBERS),
        *((but(name, value), [name]) for name in ("customer_id", "sku") for value in NAMES),
        *((but("currency", value), ["currency"]) for value in CURRENCIES),
        (but("quantity", b"2147483648"), ["quantity"]),
        (but("amount", b'1, "amount": 2'), ["amount"]),
        (but("currency", b'"EUR", "state": "paid"'), ["state"]),
        (b"[]", ["body"]),
    ],
)
def test_no_order(body: bytes, fields: list[str]) -> None:
    """Whatever is no order is refused with 422, and every field at fault is named."""
    with pytest.raises(Problem) as refused:
        parse(body)
    assert refused.value.status == HTTPStatus.UNPROCESSABLE_ENTITY
    assert list(refused.value.errors) == fields


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_no_json(body: bytes) -> None:
    """What is not JSON is refused with 400."""
    with pytest.raises(Problem) as refused:
        parse(body)
    assert refused.value.status == HTTPStatus.BAD_REQUEST


def test_a_fingerprint_is_of_the_order_not_of_its_spelling() -> None:
    """Another order of members is the same order; another amount is not."""
    same = parse(b'{"currency":"EUR","amount":1999,"quantity":2,"sku":"sku-1","customer_id":"c-1"}')
    other = parse(ORDER.replace(b"1999", b"2000"))
    assert parse(ORDER).fingerprint() == same.fingerprint() != other.fingerprint()


@pytest.mark.parametrize(
    "keys", [[], [""], ["x" * 256], ["caf\xe9"], ["a\tb"], ["a", "b"], ['"'], ['""'], ['"a'], ['"a"b'], [r'"\a"']]
)
def test_no_key(keys: list[str]) -> None:
    """A key is there once, short and printable, or the request is refused with 400."""
    with pytest.raises(Problem) as refused:
        check_key(keys)
    assert refused.value.status == HTTPStatus.BAD_REQUEST
    assert list(refused.value.errors) == ["Idempotency-Key"]


@pytest.mark.parametrize(
    ("header", "key"),
    [("a", "a"), ('"a"', "a"), (r'"a\"b\\"', 'a"b\\'), ('a"b', 'a"b'), ('"%s"' % ("x" * 255), "x" * 255)],
)
def test_a_key(header: str, key: str) -> None:
    """A key that is quoted, as the draft has it, and one that is not are the same."""
    assert check_key([header]) == key


GIVEN = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("header", ["00" + GIVEN, "01" + GIVEN, "cc" + GIVEN + "-what-comes"])
def test_a_trace_goes_on(header: str) -> None:
    """A client's trace is the order's, in the version that we know."""
    assert trace([header]) == "00" + GIVEN


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["00" + GIVEN] * 2,
        ["ff" + GIVEN],
        ["00" + GIVEN + "-more"],
        ["00" + GIVEN.upper()],
        ["00" + GIVEN + "\n"],
        ["00-" + "0" * 32 + "-b7ad6b7169203331-01"],
        ["00-0af7651916cd43dd8448eb211c80319c-" + "0" * 16 + "-01"],
        ["x" * 10_000],
    ],
)
def test_a_trace_begins(headers: list[str]) -> None:
    """Where none was given, or none that can be, there is a new one, another each time."""
    begun = {trace(headers), trace(headers), trace([])}
    assert len(begun) == 3
    assert begun.isdisjoint(headers)
    assert {trace([one]) for one in begun} == begun
