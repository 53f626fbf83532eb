"""The events that hops exchange: JSON objects on a topic, keyed by order_id. This is the contract between the rooms.

Readers ignore members they do not know, so that a writer can add one before its readers learn of it.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import Annotated
from uuid import UUID  # noqa: TC003 - read when the classes are made

from msgspec import DecodeError, Meta, Struct
from msgspec.json import Decoder

# What Postgres can store, and nobody minds in a log.
Name = Annotated[str, Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*\Z")]
Count = Annotated[int, Meta(ge=1, lt=2**31)]
Amount = Annotated[int, Meta(gt=0, le=10**12)]  # in minor units: 1999 with EUR is 19.99 euros
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}\Z")]


class Malformed(Exception):
    """This is no event, however often it is read."""


class Event(Struct, frozen=True, kw_only=True):
    """What all events say. `seq` counts the events of one order from 1."""

    event_id: UUID
    order_id: Name
    seq: Count


class OrderPlaced(Event, frozen=True, kw_only=True, tag_field="type", tag="order.placed"):
    """An order was accepted: this much is to be paid for so many of these goods."""

    customer_id: Name
    sku: Name
    quantity: Count
    amount: Amount
    currency: Currency


class ItemOrdered(Event, frozen=True, kw_only=True, tag_field="type", tag="order.placed"):
    """What an order.placed says about goods."""

    sku: Name
    quantity: Count


class ItemPriced(Event, frozen=True, kw_only=True, tag_field="type", tag="order.placed"):
    """What an order.placed says about money."""

    amount: Amount
    currency: Currency


class Confirmed(Event, frozen=True, kw_only=True, tag_field="type", tag="order.confirmed"):
    """An order is charged, and has its goods."""

    customer_id: Name


class Failed(Event, frozen=True, kw_only=True, tag_field="type", tag="order.failed"):
    """An order will not have both."""

    customer_id: Name


class _Any(Event, frozen=True, kw_only=True):
    """An event of which nothing else matters."""

    type: str


class _None(Event, frozen=True, kw_only=True, tag_field="type", tag=""):
    """Makes a reader's kinds several: msgspec does not insist on the type of a single one."""


class Reader:
    """Reads events of these kinds, at most one for each type; others are passed over."""

    def __init__(self, *kinds: type[Event]) -> None:
        self._decode = Decoder(reduce(or_, kinds, _None)).decode
        self._types = {kind.__struct_config__.tag for kind in kinds}

    def read(self, value: bytes | None) -> Event | None:
        """The event; None if it is one of another type.

        Raises:
            Malformed: it is none. It says what is wrong with it.
        """
        try:
            event: Event = self._decode(value or b"")
        except _WRONG as why:
            if _type_of(value) in self._types:
                raise Malformed(str(why)) from why
            return None
        return None if isinstance(event, _None) else event


_WRONG = (DecodeError, UnicodeDecodeError, RecursionError)
_decode_any = Decoder(_Any).decode


def _type_of(value: bytes | None) -> str:
    try:
        return _decode_any(value or b"").type
    except _WRONG as why:
        raise Malformed(str(why)) from why
