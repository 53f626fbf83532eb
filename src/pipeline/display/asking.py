"""Asking the API for an order, as its customers' client: three answers, of which one is that there was none.

No answer leaves it open whether there is an order. Asking again with the same key is safe, and the only way to know.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

import httpx

from pipeline.runtime import Outage

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "Idempotency-Key"


class Accepted(NamedTuple):
    """There is an order."""

    order_id: str


class Refused(NamedTuple):
    """There is none, because of these fields."""

    errors: Mapping[str, str]


class Unknown(NamedTuple):
    """Nobody knows."""

    why: str


class Api:
    """A client of `pipeline.write.api` at `url`."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._name = f"The API at {url}"
        self._outage = Outage("Customers are told that nobody knows of their orders; their pages ask again")
        self._client = httpx.AsyncClient(base_url=url, timeout=timeout_s)

    async def ask(self, key: str, order: Mapping[str, object]) -> Accepted | Refused | Unknown:
        """Ask once. That there is no answer is logged as well."""
        answer = await self._ask(key, order)
        if isinstance(answer, Unknown):
            self._outage.tell(answer.why)
        else:
            self._outage.over()
        return answer

    async def _ask(self, key: str, order: Mapping[str, object]) -> Accepted | Refused | Unknown:
        try:
            reply = await self._client.post("/orders", json=order, headers={KEY: key})
            content = reply.json()
            if reply.status_code == HTTPStatus.ACCEPTED:
                return Accepted(content["order_id"])
            if reply.status_code in {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}:
                return Refused({error["field"]: error["detail"] for error in content["errors"]})
        except (httpx.HTTPError, ValueError, LookupError, TypeError) as why:
            return Unknown(f"{self._name}: {why!r}")
        return Unknown(f"{self._name} said {reply.status_code} {reply.text[:200]}")

    async def close(self) -> None:
        """Hang up."""
        await self._client.aclose()
