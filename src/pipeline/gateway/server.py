"""A payment gateway over HTTP, with the semantics of the real ones.

`POST /charges` with an Idempotency-Key header and `{"order_id", "amount", "currency"}`:

* 201 charged; 402 declined. The first outcome of a key is kept for ever.
* the same key again: 200 and the stored charge, or 402 and the stored refusal. Nothing is charged.
* the same key with another payload: 422. A request that is no charge at all (400) is not logged.

`POST /refunds`, likewise: 201 refunded. 409 if that much of the order was not charged, or was given back already; this
is not logged and binds nobody, as a charge may be on its way.

`GET /charges?order_id=...`, `GET /refunds?order_id=...`: the records of that order, as a JSON list.

Each request is decided, logged and synced to disk without giving way to another one; that is what makes it a ledger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

from pipeline.gateway.ledger import CREATED, DECLINED, MISMATCH, Charge, Ledger
from pipeline.runtime import begin, serve
from pipeline.settings import GatewaySettings, load

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request

    from pipeline.gateway.ledger import Record

BAD_REQUEST, CONFLICT = 400, 409


class _Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    order_id: str
    amount: PositiveInt
    currency: str


class _Refused(Exception):
    """The request is answered with this status, and is not in the log."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def gateway(charges: Ledger, refunds: Ledger) -> Starlette:
    """The gateway as an application on top of its ledgers."""

    def refund(key: str, wanted: Charge) -> Record:
        left = charges.moved(wanted.order_id, wanted.currency) - refunds.moved(wanted.order_id, wanted.currency)
        if wanted.amount > left and not refunds.knows(key):
            raise _Refused(CONFLICT, f"Of this order {left} {wanted.currency} can be refunded, in minor units.")
        return refunds.enter(key, wanted, CREATED)

    return Starlette(
        routes=[
            *_routes("/charges", charges, charges.charge, "charged"),
            *_routes("/refunds", refunds, refund, "refunded"),
        ]
    )


def _routes(path: str, ledger: Ledger, decide: Callable[[str, Charge], Record], done: str) -> list[Route]:
    async def post(request: Request) -> JSONResponse:
        try:
            key, body = await _read(request)
            record = decide(key, Charge(**body.model_dump()))
        except _Refused as why:
            return JSONResponse({"error": str(why)}, why.status)
        if record["reply"] == MISMATCH:
            return JSONResponse({"error": "This key was used for another request."}, MISMATCH)
        state = "declined" if record["reply"] == DECLINED else done
        return JSONResponse({"key": key, "state": state, **body.model_dump()}, record["reply"])

    async def get(request: Request) -> JSONResponse:
        return JSONResponse(ledger.of_order(request.query_params.get("order_id", "")))

    return [Route(path, post, methods=["POST"]), Route(path, get, methods=["GET"])]


async def _read(request: Request) -> tuple[str, _Body]:
    key = request.headers.get("Idempotency-Key")
    if not key:
        raise _Refused(BAD_REQUEST, "The header Idempotency-Key is missing.")
    try:
        return key, _Body.model_validate_json(await request.body())
    except ValidationError as wrong:
        raise _Refused(BAD_REQUEST, str(wrong)) from wrong


def main() -> None:
    """Run the gateway until SIGTERM."""
    begin("gateway")
    settings = load(GatewaySettings)
    serve(gateway(Ledger(settings.ledger), Ledger(settings.refunds)), settings.port)
