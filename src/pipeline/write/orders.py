"""Accepting an order: its row, its event and the answer for its Idempotency-Key in one transaction, or nothing.

So a client that did not get its answer may ask again with the same key and is told the same order, and an order without
an event (or an event without an order) cannot exist, wherever a crash falls.
"""

from __future__ import annotations

import json
import logging
import re
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple
from uuid import uuid4

import msgspec
from psycopg.errors import LockNotAvailable
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chaos.checkpoint import checkpoint
from pipeline.events import OrderPlaced
from pipeline.observe.logs import about
from pipeline.observe.process import done
from pipeline.write.problems import Problem

if TYPE_CHECKING:
    from psycopg import AsyncConnection

log = logging.getLogger(__name__)

KEY = "Idempotency-Key"
LONGEST_KEY = 255
LARGEST_BODY = 64 * 1024
_ESCAPED = re.compile(r"\\([\\\"])")  # RFC 9651, Strings
_QUOTED = re.compile(r"\"((?:[^\\\"]|\\[\\\"])*)\"")

REMEMBER = "insert into idempotency_keys (key, fingerprint, reply) values (%s, %s, %s) on conflict do nothing"
RECALL = "select fingerprint, reply from idempotency_keys where key = %s"
ORDER = """
    insert into orders (order_id, customer_id, sku, quantity, amount, currency)
    values (%(order_id)s, %(customer_id)s, %(sku)s, %(quantity)s, %(amount)s, %(currency)s)
"""
EVENT = """
    insert into outbox (event_id, order_id, seq, type, payload, traceparent)
    values (%(event_id)s, %(order_id)s, %(seq)s, %(type)s, %(payload)s, %(traceparent)s)
"""


# Postgres cannot store NUL, and nobody wants the other control characters in a log.
_Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class NewOrder(BaseModel):
    """The body of POST /orders. Strict: "12" is no amount, true is no amount, and an unknown member is a mistake."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    customer_id: _Name
    sku: _Name
    quantity: Annotated[int, Field(gt=0, lt=2**31)]
    amount: Annotated[int, Field(gt=0, le=10**12)]  # minor units: 1999 with EUR is 19.99 euros
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]

    def as_json(self) -> str:
        """The same text for the same order, however the client wrote it."""
        return json.dumps(self.model_dump(), sort_keys=True, separators=(",", ":"))

    def fingerprint(self) -> str:
        """Tells whether two requests ask for the same."""
        return sha256(self.as_json().encode()).hexdigest()


def parse(body: bytes) -> NewOrder:
    """The order in a request's body, or a `Problem` that names every field at fault."""
    try:
        content = json.loads(body, object_pairs_hook=_each_once, parse_int=_bounded)
    except (ValueError, RecursionError) as wrong:
        raise Problem(HTTPStatus.BAD_REQUEST, "The body is not JSON.", errors={"body": str(wrong)}) from wrong
    try:
        return NewOrder.model_validate(content)
    except ValidationError as wrong:
        errors = {".".join(map(str, e["loc"])) or "body": e["msg"] for e in wrong.errors()}
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "This is not an order.", errors=errors) from wrong


def _each_once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object, unless it says something twice: whoever looked at it before us may have taken the other value."""
    found: dict[str, Any] = {}
    for name, value in members:
        if name in found:
            raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "This is not an order.", errors={name: "Is given twice."})
        found[name] = value
    return found


def _bounded(digits: str) -> int:
    # Python refuses numbers of thousands of digits without saying where. Forty are as much too large, and get a name.
    return int(digits[:40])


def check_key(keys: list[str]) -> str:
    """The one key among the header's values, or a `Problem` that says what a key is."""
    [key] = keys if len(keys) == 1 else [""]
    if (quoted := _QUOTED.fullmatch(key)) is not None:
        key = _ESCAPED.sub(r"\1", quoted[1])
    elif key.startswith('"'):
        key = ""
    if key and len(key) <= LONGEST_KEY and key.isascii() and key.isprintable():
        return key
    errors = {
        KEY: f"Required, once: 1 to {LONGEST_KEY} printable ASCII characters, new for each order, same for each retry."
    }
    raise Problem(HTTPStatus.BAD_REQUEST, f"The header {KEY} is missing or malformed.", errors=errors)


class Placement(NamedTuple):
    """A request for an order: what is asked for, by which key, and within which trace."""

    key: str
    order: NewOrder
    traceparent: str


async def place(connection: AsyncConnection, asked: Placement) -> str:
    """Record the order unless its key was used before; either way return the body that answers it.

    The connection must have a `lock_timeout`: a request with the same key that is still in progress makes the first
    insert wait for its outcome, and that wait has to end.
    """
    async with connection.transaction():
        reply = await record(connection, asked)
    done("orders accepted")
    checkpoint("order.committed")
    return reply


async def record(connection: AsyncConnection, asked: Placement) -> str:
    """What `place` does in its transaction."""
    key, order, traceparent = asked
    order_id = str(uuid4())
    reply = json.dumps({"order_id": order_id, "state": "pending"})
    try:
        remembered = await connection.execute(REMEMBER, [key, order.fingerprint(), reply])
    except LockNotAvailable as busy:
        errors = {KEY: "A request with this key is in progress."}
        raise Problem(HTTPStatus.CONFLICT, "Wait for it, or ask again soon.", errors=errors) from busy
    if remembered.rowcount == 0:
        return await _recall(connection, key, order)
    placed = OrderPlaced(event_id=uuid4(), order_id=order_id, seq=1, **order.model_dump())
    event = msgspec.to_builtins(placed) | {"payload": msgspec.json.encode(placed).decode(), "traceparent": traceparent}
    await connection.execute(ORDER, event)
    await connection.execute(EVENT, event)
    log.debug("accepted", extra=about(order_id, placed.event_id, traceparent))
    checkpoint("order.inserted")
    return reply


async def _recall(connection: AsyncConnection, key: str, order: NewOrder) -> str:
    row = await (await connection.execute(RECALL, [key])).fetchone()
    assert row is not None, "rows of idempotency_keys are never deleted"  # noqa: S101 - an invariant, not a check of input
    fingerprint, reply = row
    if fingerprint != order.fingerprint():
        errors = {KEY: "It was used for another order. A new order needs a new key."}
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, "This key stands for another order.", errors=errors)
    return str(reply)
