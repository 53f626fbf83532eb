"""The events that hops exchange: JSON objects on a topic, keyed by order_id. This is the contract between the rooms.

Readers ignore members they do not know, so that a writer can add one before its readers learn of it.
"""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations when the class is made

from pydantic import BaseModel, ConfigDict, Field

# What Postgres can store, and nobody minds in a log.
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$")]


class OrderPlaced(BaseModel):
    """An order was accepted and is to be paid.

    `seq` counts the events of one order from 1. `amount` is in minor units: 1999 with EUR is 19.99 euros.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    event_id: UUID
    type: Literal["order.placed"]
    order_id: str
    seq: int
    customer_id: str
    amount: int
    currency: str


class Event(BaseModel):
    """What all events say. `seq` counts the events of one order from 1."""

    model_config = ConfigDict(frozen=True, strict=True)

    event_id: UUID
    type: str
    order_id: Name
    seq: Annotated[int, Field(ge=1, lt=2**31)]


class ItemOrdered(Event):
    """What an order.placed says about goods."""

    sku: Name
    quantity: Annotated[int, Field(ge=1, lt=2**31)]


class ItemPriced(Event):
    """What an order.placed says about money. `amount` is in minor units: 1999 with EUR is 19.99 euros."""

    amount: Annotated[int, Field(gt=0, le=10**12)]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]


class Outcome(Event):
    """What has become of an order, for good: order.confirmed or order.failed."""

    type: Literal["order.confirmed", "order.failed"]
    customer_id: Name
