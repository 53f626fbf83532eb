"""The operators' page: the six hops with their gauges, live, and dead letters that can be sent back.

`python -m pipeline operator`; a worker of its own, as customers must not reach it. What it shows is what
`python -m pipeline observe` answers at GAUGES_URL, and which orders are parked; what it does it does by
`python -m pipeline replay`, whose words it shows: first what would be sent, or left where it is, and then, by a second
button, what was. The second names what was shown; if that is not so any more, nothing is done, and it is shown anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qsl

import httpx
import psycopg
from psycopg.rows import namedtuple_row
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.display.origin import foreign
from pipeline.display.page import HEADERS, STATIC
from pipeline.display.rendering import render
from pipeline.observe.gauges import GAUGES, GROUPS, HOPS
from pipeline.observe.look import Shown, shown
from pipeline.runtime import address, begin, first_line, serve
from pipeline.settings import OperatorSettings, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from starlette.types import ASGIApp, Receive, Scope, Send

PATIENCE_S = 5.0
REPLAY_S = 60.0
ACTIONS = {"send": ("--kind=failing",), "leave": ("--kind=poison", "--leave")}  # what nobody can read is not sent back
CHANGED = 3  # exit code of the tool: it is not what was shown
SHOWN = re.compile(r"--as-shown ([0-9a-f]+)\s*")
NOT_FOR_TOOLS = {"METRICS_PORT", "LOG_LEVEL", "LOG_FORMAT"}  # those are ours; what the tool says is for people
PARKED = """
    select consumer_group, order_id, to_char(since, 'YYYY-MM-DD HH24:MI:SS') as since, attempts, reason,
        next_attempt_at is null as given_up
    from parked_orders order by parked_orders.since limit 20
"""
NO_GAUGE, NOT_KNOWN = "No gauge of its own.", "Not known now."


class Row(NamedTuple):
    """A gauge."""

    name: str
    about: str
    values: list[Shown]


class Card(NamedTuple):
    """A hop: its gauges, or why there are none."""

    rows: list[Row]
    none: str

    @property
    def look(self) -> str:
        """What is not known does not look well."""
        if not self.rows:
            return "unknown" if self.none == NOT_KNOWN else "bare"
        return "failed" if any(one.trouble for row in self.rows for one in row.values) else "confirmed"


class Told(NamedTuple):
    """What the tool has said, whether it has done what it was asked for, and how to name what it has shown."""

    status: HTTPStatus
    said: str
    shown: str = ""


class Room:
    """What all requests share."""

    def __init__(self, settings: OperatorSettings) -> None:
        self._url, self._database_url = settings.gauges_url, settings.database_url
        self.client = httpx.AsyncClient(timeout=PATIENCE_S)

    async def hops(self) -> dict[str, object]:
        """What there is to show of the hops, all six; why there are no gauges, if there are none."""
        try:
            answer = (await self.client.get(self._url)).raise_for_status()
        except httpx.HTTPError as why:
            return {"hops": cards([]), "amiss": f"There are no gauges: {self._url}: {why!r}"}
        return {"hops": cards(shown(answer.text)), "amiss": ""}

    async def parked(self) -> dict[str, object]:
        """The orders that wait, the longest first; why there is nothing to show, if Postgres is away."""
        try:
            connection = await psycopg.AsyncConnection.connect(self._database_url, autocommit=True, connect_timeout=2)
            async with connection, connection.cursor(row_factory=namedtuple_row) as cursor:
                return {"parked": await (await cursor.execute(PARKED)).fetchall(), "unread": ""}
        except psycopg.OperationalError as why:
            return {"parked": [], "unread": f"Postgres at {address(self._database_url)}: {first_line(why)}"}


def cards(gauges: Iterable[Shown]) -> dict[str, Card]:
    """One for each hop, in their order, and one for who observes them."""
    declared, found = {gauge.hop for gauge in GAUGES.values()}, list(gauges)
    return {
        hop: Card(rows(one for one in found if one.hop == hop), NOT_KNOWN if hop in declared else NO_GAUGE)
        for hop in (*HOPS, "observe")
    }


def rows(gauges: Iterable[Shown]) -> list[Row]:
    """One for each gauge, with a value for each of what it is about."""
    return [
        Row(name, about, list(values)) for (name, about), values in groupby(gauges, lambda one: (one.name, one.about))
    ]


async def get_page(request: Request) -> Response:
    """The whole page."""
    room: Room = request.app.state.room
    told = {"groups": GROUPS, **await room.hops(), **await room.parked()}
    return HTMLResponse(render("operators.html", **told), headers=HEADERS)


async def get_hops(request: Request) -> Response:
    """The hops alone."""
    room: Room = request.app.state.room
    return HTMLResponse(render("hops.html", **await room.hops()), headers=HEADERS)


async def get_parked(request: Request) -> Response:
    """The orders that wait, alone."""
    room: Room = request.app.state.room
    return HTMLResponse(render("parked.html", **await room.parked()), headers=HEADERS)


async def post_replay(request: Request) -> Response:
    """Say what would be done, or do what was said."""
    told = dict(parse_qsl((await request.body()).decode(errors="replace")))
    group, do, shown = told.get("group", ""), told.get("do", "send"), told.get("shown", "")
    if group not in GROUPS or do not in ACTIONS:
        return PlainTextResponse("There is no such group, or nothing such to do.", HTTPStatus.UNPROCESSABLE_ENTITY)
    answer = await replay(group, [*ACTIONS[do], f"--as-shown={shown}" if shown else "--dry-run"])
    text = render("replayed.html", group=group, do=do, really=bool(shown), **answer._asdict())
    return HTMLResponse(text, answer.status, HEADERS)


async def replay(group: str, options: Iterable[str]) -> Told:
    """What the tool says. It does not outlive the question."""
    tool = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "pipeline", "replay", group, *options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name not in NOT_FOR_TOOLS},
    )
    try:
        out, log = await asyncio.wait_for(tool.communicate(), REPLAY_S)
    except TimeoutError:
        return Told(HTTPStatus.GATEWAY_TIMEOUT, f"It has not ended within {REPLAY_S:.0f} s, and was ended.")
    finally:
        with suppress(ProcessLookupError):
            tool.kill()
        await tool.wait()
    status = {0: HTTPStatus.OK, CHANGED: HTTPStatus.CONFLICT}.get(tool.returncode or 0, HTTPStatus.BAD_GATEWAY)
    found = SHOWN.fullmatch(out.decode(errors="replace"))
    return Told(status, log.decode(errors="replace"), found[1] if found else "")


class Ours:
    """Answers nobody else's pages."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or refuse to."""
        app = self._app
        if scope["type"] == "http" and foreign(Request(scope)):
            app = PlainTextResponse("Come from this page, by the name localhost or 127.0.0.1.", HTTPStatus.FORBIDDEN)
        await app(scope, receive, send)


def operators(settings: OperatorSettings) -> Starlette:
    """The application."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        app.state.room = room = Room(settings)
        async with room.client:
            yield

    return Starlette(
        routes=[
            Route("/", get_page, methods=["GET"]),
            Route("/hops", get_hops, methods=["GET"]),
            Route("/parked", get_parked, methods=["GET"]),
            Route("/replay", post_replay, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Ours)],
        lifespan=lifespan,
    )


def main() -> None:
    """Run the page until SIGTERM."""
    begin("operator")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it tells of each request, one every two seconds
    settings = load(OperatorSettings)
    serve(operators(settings), settings.port)
