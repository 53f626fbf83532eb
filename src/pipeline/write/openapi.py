"""`GET /openapi.json`: the API for programs to read, OpenAPI 3.1, made of the declarations that it runs on.

Every reply that the application gives is in it, with its media type and headers, and nothing that it does not give: a
test has Schemathesis hold the two against each other. 500 is not in it, as that would be our mistake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipeline.observe import health
from pipeline.write.orders import KEY, LARGEST_BODY, LONGEST_KEY, NewOrder
from pipeline.write.problems import MEDIA_TYPE, Document
from pipeline.write.tracing import TRACEPARENT

if TYPE_CHECKING:
    from starlette.requests import Request

_SCHEMAS = "#/components/schemas/"
_ABOUT = """
Orders are accepted once per key. Every refusal is a problem document (RFC 9457), also of a path that there is not (404)
and of a method that a path does not have (405, with Allow). What JSON Schema does not say: a number with a fraction or
an exponent is no integer, 1.0 neither, and a member that is given twice is a mistake.
"""
# As `orders.check_key` has it: bare, or a String of RFC 9651. HTTP takes away spaces around it.
_BARE = rf"[!#-~]([ -~]{{0,{LONGEST_KEY - 2}}}[!-~])?"
_QUOTED = rf'"([ !#-\[\]-~]|\\[\\"]){{1,{LONGEST_KEY}}}"'
_HEADERS = [
    {
        "name": KEY,
        "in": "header",
        "required": True,
        "description": "New for each order, the same for each retry; quoted or bare is the same. It does not expire.",
        "schema": {"type": "string", "pattern": f"^({_BARE}|{_QUOTED})$"},
        "example": "9f0c3a52-6a0e-4d4e-9d86-0f6f1f0f6b0e",
    },
    {
        "name": TRACEPARENT,
        "in": "header",
        "description": "W3C Trace Context; it goes with the event. A malformed one is as good as none.",
        "schema": {"type": "string"},
        "example": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
]
_ORDER = {"customer_id": "customer-1", "sku": "mug", "quantity": 2, "amount": 2580, "currency": "EUR"}
_ACCEPTED = {
    "type": "object",
    "properties": {"order_id": {"type": "string", "format": "uuid"}, "state": {"const": "pending"}},
    "required": ["order_id", "state"],
    "additionalProperties": False,
}
_HEALTHY = {
    "type": "object",
    "properties": {"status": {"const": "ok"}},
    "required": ["status"],
    "additionalProperties": False,
}
_REFUSALS = {
    "400": "No key or a malformed one, or no JSON. Nothing was recorded.",
    "409": "A request with this key is in progress. Wait for its answer, or ask again soon.",
    "413": f"The body is larger than {LARGEST_BODY} bytes. Nothing was recorded.",
    "415": "The body is not application/json. Nothing was recorded.",
    "422": "This is not an order, or the key stands for another one. Nothing was recorded.",
}
_RETRY_AFTER = {"Retry-After": {"description": "In seconds.", "required": True, "schema": {"type": "integer"}}}


def _json(schema: dict[str, Any], media_type: str = "application/json", **more: object) -> dict[str, Any]:
    return {"content": {media_type: {"schema": schema, **more}}}


def _description() -> dict[str, Any]:
    models = models_json_schema(
        [(NewOrder, "validation"), (Document, "serialization")], ref_template=f"{_SCHEMAS}{{model}}"
    )[1]
    problem = _json({"$ref": f"{_SCHEMAS}{Document.__name__}"}, MEDIA_TYPE)
    away = "Postgres is away: the order may or may not have been recorded. Asking again with the same key is safe."
    order = {
        "operationId": "post_order",
        "summary": "Place an order",
        "parameters": _HEADERS,
        "requestBody": {"required": True, **_json({"$ref": f"{_SCHEMAS}{NewOrder.__name__}"}, example=_ORDER)},
        "responses": {
            "202": {"description": "The order and its event are durable.", **_json(_ACCEPTED)},
            **{status: {"description": text, **problem} for status, text in _REFUSALS.items()},
            "503": {"description": away, "headers": _RETRY_AFTER, **problem},
        },
    }
    healthy = {"description": "The process answers. This says nothing of Postgres.", **_json(_HEALTHY)}
    answers = {"operationId": "get_health", "summary": "Whether the process answers", "responses": {"200": healthy}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Orders", "version": "1", "description": _ABOUT.strip()},
        "paths": {"/orders": {"post": order}, health.PATH: {"get": answers}},
        "components": {"schemas": models["$defs"]},
    }


DESCRIPTION = _description()


async def get_description(_: Request) -> JSONResponse:
    """The description."""
    return JSONResponse(DESCRIPTION)


OPENAPI = Route("/openapi.json", get_description, methods=["GET"])
