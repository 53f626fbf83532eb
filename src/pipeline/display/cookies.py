"""What the customer's browser keeps for us: who they are, what was accepted, and what nobody has answered.

An order that was accepted is noted for an hour, so that an answer to an earlier question, or a look into a database
that lags or is away, does not make it vanish. A question is noted with its key and its price until it is answered, for
a day at most: a page that is opened again goes on asking the same, and does not order twice.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from starlette.requests import Request
    from starlette.responses import Response

CUSTOMER, ORDER, ASK = "customer", "order-", "ask-"
A_YEAR_S, A_DAY_S, A_WHILE_S = 365 * 86_400, 86_400, 3_600
MOST = 20  # orders that are noted, and as many are listed
LONGEST_NUMBER = 12  # digits
AT = re.compile(r"\d{1,10}(\.\d{1,6})?")
ID = re.compile(r"[0-9a-f-]{32,36}")  # what we and the API make: keys and orders


class Offer(NamedTuple):
    """A good at the price that a customer was shown. One value in a form, as it is chosen as one."""

    sku: str
    price: int  # of one, in minor units
    currency: str

    def __str__(self) -> str:
        return f"{self.price} {self.currency} {self.sku}"


class Wish(NamedTuple):
    """What a customer asks for, and under which key. The quantity as it was typed: whether it is one the API says."""

    key: str
    offer: Offer
    quantity: str


class Note(NamedTuple):
    """An order that was accepted."""

    order_id: str
    offer: Offer
    quantity: int
    at: float  # Unix seconds


def new_key() -> str:
    """For a wish, or a customer."""
    return secrets.token_hex(16)


def offered(text: str) -> Offer:
    """The offer that is written so; what is none is taken for a good that nobody has."""
    price, _, rest = text.partition(" ")
    currency, _, sku = rest.partition(" ")
    if price.isdecimal() and len(price) <= LONGEST_NUMBER:
        return Offer(sku, int(price), currency)
    return Offer(text, 0, "")


def customer_of(request: Request) -> str:
    """Who this is; somebody new if nobody we know."""
    name = request.cookies.get(CUSTOMER, "")
    return name if ID.fullmatch(name) else new_key()


def keep_customer(response: Response, name: str) -> None:
    """Have them come back as the same."""
    response.set_cookie(CUSTOMER, name, max_age=A_YEAR_S, httponly=True, samesite="lax")


def notes_of(request: Request) -> list[Note]:
    """The latest first."""
    found = []
    for order_id, told in _kept(request, ORDER):
        quantity, at = told.get("quantity", ""), told.get("at", "")
        if quantity.isdecimal() and AT.fullmatch(at):
            offer, now = offered(told.get("offer", "")), time.time()
            found.append(Note(order_id, offer, int(quantity[:9]), min(float(at), now)))
    return sorted(found, key=lambda note: note.at, reverse=True)


def wishes_of(request: Request) -> list[Wish]:
    """What nobody has answered."""
    return [Wish(key, offered(told.get("offer", "")), told.get("quantity", "")) for key, told in _kept(request, ASK)]


def keep_note(response: Response, note: Note, others: Sequence[Note]) -> None:
    """For a while, and those of the others that are not too many."""
    told = {"offer": str(note.offer), "quantity": note.quantity, "at": f"{note.at:.3f}"}
    response.set_cookie(ORDER + note.order_id, urlencode(told), max_age=A_WHILE_S, samesite="lax")
    for old in others[MOST - 1 :]:
        response.delete_cookie(ORDER + old.order_id, samesite="lax")


def keep_wish(response: Response, wish: Wish) -> None:
    """Until it is answered. `static/display.js` writes the same before it asks, as we might not be reached."""
    told = {"offer": str(wish.offer), "quantity": wish.quantity}
    response.set_cookie(ASK + wish.key, urlencode(told), max_age=A_DAY_S, samesite="lax")


def drop_wish(response: Response, wish: Wish) -> None:
    """It is answered."""
    response.delete_cookie(ASK + wish.key, samesite="lax")


def _kept(request: Request, prefix: str) -> Iterator[tuple[str, dict[str, str]]]:
    for name, value in request.cookies.items():
        if name.startswith(prefix) and ID.fullmatch(name, len(prefix)):
            yield name.removeprefix(prefix), dict(parse_qsl(value))
