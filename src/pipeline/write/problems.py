"""What a client is told when its request is refused: RFC 9457 `application/problem+json`, naming each field."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException
from starlette.responses import Response

from pipeline.observe.process import done

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.requests import Request

MEDIA_TYPE = "application/problem+json"
_CONFIG = ConfigDict(extra="forbid", frozen=True, json_schema_serialization_defaults_required=True)


class FieldError(BaseModel):
    """A field of the request, and what is wrong with it."""

    model_config = _CONFIG

    field: str
    detail: str


class Document(BaseModel):
    """Why a request is refused (RFC 9457)."""

    model_config = _CONFIG

    type: Literal["about:blank"] = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldError]


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


async def answer(_: Request, error: Exception) -> Response:
    """Starlette's exception handler for `Problem` and for its own `HTTPException` (no such path, wrong method)."""
    if isinstance(error, HTTPException):
        error = Problem(HTTPStatus(error.status_code), error.detail, headers=error.headers)
    if not isinstance(error, Problem):
        raise error
    done(f"requests refused {error.status.value}")
    body = Document(
        title=error.status.phrase,
        status=error.status,
        detail=error.detail,
        errors=[FieldError(field=_as_text(field), detail=detail) for field, detail in error.errors.items()],
    )
    return Response(body.model_dump_json(), error.status, error.headers, media_type=MEDIA_TYPE)


def _as_text(field: str) -> str:
    # A member's name is the client's, and JSON has names that no encoding has: half a surrogate pair.
    return field.encode(errors="backslashreplace").decode()
