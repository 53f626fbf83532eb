"""A payment gateway over HTTP, with the semantics of the real ones.

`POST /charges` with an Idempotency-Key header and `{"order_id", "amount", "currency"}`:

* 201 charged; 402 declined. The first outcome of a key is kept for ever.
* the same key again: 200 and the stored charge, or 402 and the stored refusal. Nothing is charged.
* the same key with another payload: 422. A request that is no charge at all (400) is not logged.

`GET /charges?order_id=...`: the ledger's records of that order, as a JSON list.

Each request is decided, logged and synced to disk without giving way to another one; that is what makes it a ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipeline.gateway.ledger import MISMATCH, Charge, Ledger
from pipeline.runtime import log_to_stderr, serve
from pipeline.settings import GatewaySettings, load

if TYPE_CHECKING:
    from starlette.requests import Request


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    order_id: str
    amount: int
    currency: str


def gateway(ledger: Ledger) -> Starlette:
    """The gateway as an application on top of `ledger`."""

    async def charge(request: Request) -> JSONResponse:
        key = request.headers.get("Idempotency-Key")
        if not key:
            return JSONResponse({"error": "The header Idempotency-Key is missing."}, 400)
        try:
            body = _Body.model_validate_json(await request.body())
        except ValidationError as wrong:
            return JSONResponse({"error": str(wrong)}, 400)
        record = ledger.charge(key, Charge(body.order_id, body.amount, body.currency))
        if record["reply"] == MISMATCH:
            return JSONResponse({"error": "This key was used for another charge."}, MISMATCH)
        state = "declined" if record["reply"] == 402 else "charged"  # noqa: PLR2004 - "payment required", as in HTTP
        return JSONResponse({"key": key, "state": state, **body.model_dump()}, record["reply"])

    async def charges(request: Request) -> JSONResponse:
        return JSONResponse(ledger.of_order(request.query_params.get("order_id", "")))

    return Starlette(
        routes=[Route("/charges", charge, methods=["POST"]), Route("/charges", charges, methods=["GET"])],
    )


def main() -> None:
    """Run the gateway until SIGTERM."""
    log_to_stderr("gateway")
    settings = load(GatewaySettings)
    serve(gateway(Ledger(settings.ledger)), settings.port)
