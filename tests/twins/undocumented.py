"""Twins: APIs that answer some orders otherwise than `/openapi.json` says. Found by Schemathesis.

Each errs at an end of what a valid order may be, or at an order that is nearly valid: where examples do not look.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING

from pipeline.write import api, orders
from pipeline.write.problems import Problem

if TYPE_CHECKING:
    from psycopg import AsyncConnection

LARGEST_AMOUNT = 10**12
LONGEST_SKU = 100


async def _fail(connection: AsyncConnection, asked: orders.Placement) -> str:
    """BUG: should cope with every sku that is valid."""
    if len(asked.order.sku) == LONGEST_SKU:
        raise IndexError
    return await orders.place(connection, asked)


async def _refuse(connection: AsyncConnection, asked: orders.Placement) -> str:
    """BUG: should have this status in the description, or another one."""
    if asked.order.amount == LARGEST_AMOUNT:
        raise Problem(HTTPStatus.PAYMENT_REQUIRED, "Nobody can pay that.")
    return await orders.place(connection, asked)


async def _tell_more(connection: AsyncConnection, asked: orders.Placement) -> str:
    """BUG: should have this member in the description."""
    return json.dumps(json.loads(await orders.place(connection, asked)) | {"quantity": asked.order.quantity})


def _parse(body: bytes) -> orders.NewOrder:
    """BUG: should refuse what it does not know."""
    content = json.loads(body)
    if isinstance(content, dict):
        content = {name: value for name, value in content.items() if name in orders.NewOrder.model_fields}
    return orders.parse(json.dumps(content).encode())


def fails() -> None:
    """Answer 500 to a long sku."""
    api.run(_fail)


def refuses() -> None:
    """Answer 402 to a large amount."""
    api.run(_refuse)


def tells_more() -> None:
    """Answer with a member more."""
    api.run(_tell_more)


def ignores() -> None:
    """Accept an order with members that are none of an order's."""
    vars(api)["parse"] = _parse  # in this process, which is a fork, and nowhere else
    api.run()
