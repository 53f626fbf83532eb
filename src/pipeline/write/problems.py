"""What a client is told when its request is refused: RFC 9457 `application/problem+json`, naming each field."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request


class Problem(Exception):
    """A request is refused. `errors` maps the name of each field at fault to what is wrong with it."""

    def __init__(
        self,
        status: HTTPStatus,
        detail: str,
        *,
        errors: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail
        self.errors = errors or {}
        self.headers = headers or {}


async def answer(_: Request, error: Exception) -> JSONResponse:
    """Starlette's exception handler for `Problem` and for its own `HTTPException` (no such path, wrong method)."""
    if isinstance(error, HTTPException):
        error = Problem(HTTPStatus(error.status_code), error.detail, headers=error.headers)
    if not isinstance(error, Problem):
        raise error
    body = {
        "type": "about:blank",
        "title": error.status.phrase,
        "status": error.status,
        "detail": error.detail,
        "errors": [{"field": field, "detail": detail} for field, detail in error.errors.items()],
    }
    return JSONResponse(body, error.status, error.headers, media_type="application/problem+json")
