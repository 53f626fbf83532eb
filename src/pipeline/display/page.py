"""The customer's page, over HTTP: a form, and the customer's orders as the server knows them.

`GET /` is the page, `GET /orders` its orders alone, `GET /changes` a stream of those that change (server-sent events,
`board`). `POST /orders` asks the API (`asking`) and is answered with a card: the order, or that nobody knows yet, with
a button that asks again under the same key. What is wrong with it is said beside the field. With JavaScript cards are
merged into the page (`static/display.js`), without it the page is sent anew.

Nothing is shown that the server has not said, and nothing of a customer's own vanishes (`cookies`). What we cannot read
is said to be unread. A POST that another site's page has sent (`origin`) changes nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import time
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.applications import Starlette
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.display import cookies
from pipeline.display.asking import Accepted, Refused
from pipeline.display.cookies import ID, LONGEST_NUMBER, Note, Offer, Wish
from pipeline.display.origin import foreign
from pipeline.display.rendering import render
from pipeline.display.shop import Shop
from pipeline.observe.health import HEALTH
from pipeline.runtime import AWAY, begin, serve
from pipeline.settings import DisplaySettings, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from starlette.requests import Request

STATIC = Path(__file__).parent / "static"
LARGEST_BODY = 4096
PING_S = 15
TEXTS = {
    "quantity": "Give a whole number, 1 or more.",
    "Idempotency-Key": "You have ordered this already, of another number or at another price: see your orders.",
}
FIELDS = {"sku": "offer"}  # where the API's are in our form
TOO_MANY = "This is more than we can charge at once."
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}


class Form(NamedTuple):
    """What the form shows: a wish, what is wrong with which field, and what is wrong with it all."""

    wish: Wish
    errors: Mapping[str, str] = {}

    @property
    def amiss(self) -> str:
        """What is wrong, and not with a field of the form."""
        return " ".join(text for field, text in self.errors.items() if field not in Wish._fields)


def fresh_form() -> Form:
    """For another order."""
    return Form(Wish(cookies.new_key(), Offer("", 0, ""), "1"))


async def get_page(request: Request) -> Response:
    """The whole page."""
    return await _page(request, fresh_form())


async def get_orders(request: Request) -> Response:
    """The orders alone."""
    shop: Shop = request.app.state.shop
    seen = await shop.see(cookies.customer_of(request), cookies.notes_of(request))
    status = HTTPStatus.OK if seen.read else HTTPStatus.SERVICE_UNAVAILABLE
    return HTMLResponse("\n".join(map(shop.card, seen.statuses)), status, HEADERS)


async def get_changes(request: Request) -> Response:
    """The stream of what changes."""
    shop: Shop = request.app.state.shop
    customer, knows = cookies.customer_of(request), request.headers.get("Last-Event-ID", "")

    async def messages() -> AsyncIterator[ServerSentEvent]:
        async with shop.board.page(customer, knows) as page:
            while True:
                for message in await page.told():
                    yield ServerSentEvent(message.data, event=message.event, id=message.id)

    return EventSourceResponse(messages(), ping=PING_S)


async def post_order(request: Request) -> Response:
    """Ask for what is in the form, at the price that was shown."""
    if foreign(request):
        return PlainTextResponse("Nothing was ordered: this came from another site.", HTTPStatus.FORBIDDEN, HEADERS)
    shop: Shop = request.app.state.shop
    wish, customer = await _wish(request), cookies.customer_of(request)
    try:
        if amiss := await shop.amiss(wish):
            return await _refuse(request, wish, {"offer": amiss})
    except AWAY:
        return await _nobody_knows(request, customer, wish)
    sku, price, currency = wish.offer
    quantity = int(wish.quantity) if wish.quantity.isdecimal() and len(wish.quantity) <= LONGEST_NUMBER else 0
    order = {"customer_id": customer, "sku": sku, "quantity": quantity or wish.quantity}
    answer = await shop.ask(wish, order | {"amount": price * (quantity or 1), "currency": currency})
    if isinstance(answer, Refused):
        errors = {FIELDS.get(key, key): TEXTS.get(key, text) for key, text in answer.errors.items() if key != "amount"}
        return await _refuse(request, wish, errors or {"quantity": TOO_MANY})
    if isinstance(answer, Accepted):
        return _accept(request, customer, wish, Note(answer.order_id, wish.offer, quantity, time.time()))
    return await _nobody_knows(request, customer, wish)


async def _wish(request: Request) -> Wish:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk[: LARGEST_BODY + 1 - len(body)]
    told = dict(parse_qsl(body.decode(errors="replace")[:LARGEST_BODY], keep_blank_values=True))
    key, offer = told.get("key", ""), cookies.offered(told.get("offer", ""))
    return Wish(key if ID.fullmatch(key) else cookies.new_key(), offer, told.get("quantity", "").strip())


def _accept(request: Request, customer: str, wish: Wish, note: Note) -> Response:
    """Show the order. Whoever looks at others of this customer is told, too."""
    shop: Shop = request.app.state.shop
    shop.board.read(customer)
    if _merges(request):
        response: Response = HTMLResponse(shop.card(shop.accepted(customer, note)), headers=_answered(wish))
    else:
        response = RedirectResponse("/", HTTPStatus.SEE_OTHER)
    cookies.keep_customer(response, customer)
    cookies.keep_note(response, note, cookies.notes_of(request))
    cookies.drop_wish(response, wish)
    return response


async def _refuse(request: Request, wish: Wish, errors: Mapping[str, str]) -> Response:
    """Say what is wrong, beside the field. What was refused may be asked for again, under another key."""
    form = Form(wish._replace(key=cookies.new_key()), errors)
    if _merges(request):
        shop: Shop = request.app.state.shop
        headers = _answered(wish) | {"HX-Retarget": "#ask", "HX-Reswap": "outerHTML"}
        text = render("form.html", form=form, goods=shop.goods)
        response: Response = HTMLResponse(text, HTTPStatus.UNPROCESSABLE_ENTITY, headers)
    else:
        response = await _page(request, form, HTTPStatus.UNPROCESSABLE_ENTITY)
    cookies.drop_wish(response, wish)
    return response


async def _nobody_knows(request: Request, customer: str, wish: Wish) -> Response:
    """Say that, and how to find out."""
    if _merges(request):
        shop: Shop = request.app.state.shop
        text = render("unknown.html", wish=wish, name=shop.name)
        response: Response = HTMLResponse(text, HTTPStatus.SERVICE_UNAVAILABLE, HEADERS)
    else:
        response = await _page(request, fresh_form(), HTTPStatus.SERVICE_UNAVAILABLE, asked=[wish])
    cookies.keep_customer(response, customer)
    cookies.keep_wish(response, wish)
    return response


async def _page(
    request: Request, form: Form, status: HTTPStatus = HTTPStatus.OK, asked: Sequence[Wish] = ()
) -> Response:
    shop: Shop = request.app.state.shop
    customer = cookies.customer_of(request)
    statuses, read = await shop.see(customer, cookies.notes_of(request))
    wishes = {wish.key: wish for wish in (*cookies.wishes_of(request), *asked)}
    open_ends = wishes or not read or any(one.state == "pending" for one in statuses)
    text = render(
        "page.html",
        form=form,
        goods=shop.goods,
        name=shop.name,
        wishes=wishes.values(),
        cards=list(map(shop.card, statuses)),
        most=cookies.MOST,
        read=read,
        again=status is HTTPStatus.OK and open_ends,  # what is told once, and what was typed, is not to be wiped off
    )
    response = HTMLResponse(text, status, HEADERS)
    cookies.keep_customer(response, customer)
    return response


def _merges(request: Request) -> bool:
    return request.headers.get("HX-Request") == "true"


def _answered(wish: Wish) -> dict[str, str]:
    return HEADERS | {"HX-Trigger-After-Swap": json.dumps({"answered": wish.key})}


def display(settings: DisplaySettings, kind: type[Shop] = Shop) -> Starlette:
    """The application. It starts without Postgres and without the API, and says what it does not know."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.shop = shop = kind(settings)
        async with shop.pool:
            telling = asyncio.create_task(shop.board.run())
            yield
            telling.cancel()
            with suppress(asyncio.CancelledError):
                await telling
        await shop.api.close()

    return Starlette(
        routes=[
            Route("/", get_page, methods=["GET"]),
            Route("/orders", get_orders, methods=["GET"]),
            Route("/orders", post_order, methods=["POST"]),
            Route("/changes", get_changes, methods=["GET"]),
            HEALTH,
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        lifespan=lifespan,
    )


def run(kind: type[Shop] = Shop) -> None:
    """Run the page until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("display")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # and this of each attempt
    settings = load(DisplaySettings)
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # a page that is open is a file, and 1,024 are usual
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    serve(display(settings, kind), settings.port)


def main() -> None:
    """Run it as it is."""
    run()
