"""POST /orders over HTTP.

`{"customer_id", "sku", "quantity", "amount", "currency"}` with an Idempotency-Key header is answered with 202 and
`{"order_id", "state"}` once order and event are durable; the same key gets the same answer. A refusal is a problem
document (`problems`) and leaves no trace: 400 no key or no JSON, 409 the key is in use this moment, 413 too large, 415
not `application/json`, 422 not an order or a key used for another one. 503 with Retry-After means that Postgres is away
and the outcome unknown: asking again *with the same key* is always safe. A key does not expire. A `traceparent` goes
with the event. All that for programs to read: `GET /openapi.json`.

Source of the rules for keys: draft-ietf-httpapi-idempotency-key-header-06. It has them quoted; a bare one, as most
clients send, is the same key.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

from psycopg_pool import AsyncConnectionPool
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from pipeline.observe.health import HEALTH
from pipeline.runtime import AWAY, Outage, address, begin, first_line, serve
from pipeline.settings import ApiSettings, load
from pipeline.write.openapi import OPENAPI
from pipeline.write.orders import KEY, LARGEST_BODY, Placement, check_key, parse, place
from pipeline.write.problems import Problem, answer
from pipeline.write.tracing import TRACEPARENT, trace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import psycopg

    Place = Callable[[psycopg.AsyncConnection, Placement], Awaitable[str]]

LOCK_TIMEOUT_MS = 500  # how long a duplicate waits for the first request's outcome before it is told 409
CONNECTION_WAIT_S = 2.0  # how long a request waits for Postgres before it is told 503


async def post_order(request: Request) -> Response:
    """Accept an order. See the module's description."""
    pool: AsyncConnectionPool = request.app.state.pool
    outage: Outage = request.app.state.outage
    key = check_key(request.headers.getlist(KEY))
    traceparent = trace(request.headers.getlist(TRACEPARENT))
    asked = Placement(key, parse(await _json_body(request)), traceparent)
    try:
        async with pool.connection() as connection:
            reply = await request.app.state.place(connection, asked)
    except AWAY as why:
        outage.tell(f"{pool.name}: {first_line(why)}")
        detail = "The order may or may not have been recorded. Ask again with the same key, that is safe."
        raise Problem(HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": "1"}) from why
    outage.over()
    return Response(reply, HTTPStatus.ACCEPTED, media_type="application/json")


async def _json_body(request: Request) -> bytes:
    if request.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        errors = {"Content-Type": "Must be application/json."}
        raise Problem(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Orders are JSON.", errors=errors)
    body = bytearray()
    # Counted as it comes in: a chunked body announces no length, and an announced one may be a lie.
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            errors = {"body": f"Must not exceed {LARGEST_BODY} bytes."}
            raise Problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "No order is that large.", errors=errors)
    return bytes(body)


async def _give_up(_: Request, __: Exception) -> Response:
    return Response(status_code=HTTPStatus.BAD_REQUEST)  # the client hung up in mid-body; nobody will read this


async def _bound_lock_waits(connection: psycopg.AsyncConnection) -> None:
    await connection.execute(f"set lock_timeout = {LOCK_TIMEOUT_MS}")


def api(database_url: str, place: Place = place) -> Starlette:
    """The application. It starts without Postgres, and answers 503 until it can be reached."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.place = place
        app.state.outage = Outage("Orders are answered 503; trying again")
        app.state.pool = AsyncConnectionPool(
            database_url,
            name=f"Postgres at {address(database_url)}",
            kwargs={"autocommit": True, "connect_timeout": 3},
            configure=_bound_lock_waits,
            min_size=1,
            max_size=10,
            timeout=CONNECTION_WAIT_S,
            # When to stop backing off and start over: keeps the pause after an outage below this many seconds.
            reconnect_timeout=3,
            reconnect_failed=lambda pool: app.state.outage.tell(f"{pool.name} is away"),
            open=False,
        )
        async with app.state.pool:
            yield

    app = Starlette(
        routes=[Route("/orders", post_order, methods=["POST"]), HEALTH, OPENAPI],
        exception_handlers={Problem: answer, HTTPException: answer, ClientDisconnect: _give_up},
        lifespan=lifespan,
    )
    # There is no /orders/. A redirect to where the request's own Host header says would be a reply of nobody's making.
    app.router.redirect_slashes = False
    return app


def run(place: Place = place) -> None:
    """Run the API until SIGTERM. The argument is for variations on it, such as seeded bugs."""
    begin("api")
    logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # tells of each attempt; the outage is told of once
    settings = load(ApiSettings)
    serve(api(settings.database_url, place), settings.port)


def main() -> None:
    """Run the API until SIGTERM."""
    run()
