"""`GET /healthz`, the same for whoever answers customers: 200 as long as the process does.

Deliberately not whether Postgres answers. A restart would not mend that, and there is no readiness apart from this:
without Postgres the API still has an answer that is worth something (503, when to ask again), and so has the page (what
was accepted). Taken out of service for it, all of them at once, they would have none. How long a server has been away
is told by `process`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse
from starlette.routing import Route

if TYPE_CHECKING:
    from starlette.requests import Request

PATH = "/healthz"


async def get_health(_: Request) -> JSONResponse:
    """This process answers."""
    return JSONResponse({"status": "ok"})


HEALTH = Route(PATH, get_health, methods=["GET"])
