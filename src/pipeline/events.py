"""The events that hops exchange: JSON objects on a topic, keyed by order_id. This is the contract between the rooms.

Readers ignore members they do not know, so that a writer can add one before its readers learn of it.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID  # noqa: TC003 - pydantic reads the annotations when the class is made

from pydantic import BaseModel, ConfigDict


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
