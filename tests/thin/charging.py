"""The gateway's client: one connection, kept open, and a verdict on a charge or a reason to ask again.

A request whose reply did not arrive is *unknown*: the card may have been charged. So there is no retry in here. The
caller asks again with the same key, and the gateway answers what it did the first time.
"""

from __future__ import annotations

import json
import select
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

from pipeline.runtime import Unavailable
from tests.thin.consumer import Poison

if TYPE_CHECKING:
    from pipeline.events import OrderPlaced

TIMEOUT_S = 3.0  # to connect, and for each wait for bytes. The inbox transaction is open meanwhile.

OK, CREATED, PAYMENT_REQUIRED, REQUEST_TIMEOUT, TOO_MANY, SERVER_ERROR = 200, 201, 402, 408, 429, 500


class Gateway:
    """Charges cards at `url`."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url.rstrip("/"))
        self._name = f"The gateway at {url}"
        self._path = f"{parts.path}/charges"
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_S)

    def charge(self, key: str, event: OrderPlaced) -> Literal["paid", "declined"]:
        """Charge the order's amount once for `key`, whatever the number of calls."""
        body = {"order_id": event.order_id, "amount": event.amount, "currency": event.currency}
        status, reply = self._post(json.dumps(body).encode(), key)
        if status in {OK, CREATED}:
            return "paid"
        if status == PAYMENT_REQUIRED:
            return "declined"
        said = f"{status} {reply[:200].decode(errors='replace')}"
        if status in {REQUEST_TIMEOUT, TOO_MANY} or status >= SERVER_ERROR:
            raise Unavailable(self._name, said)
        refused = f"{self._name} refused to charge order {event.order_id}: {said}"
        raise Poison(refused)

    def _post(self, body: bytes, key: str) -> tuple[int, bytes]:
        if self._dropped():
            self._connection.close()  # the next request opens it again
        try:
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            self._connection.request("POST", self._path, body, headers)
            reply = self._connection.getresponse()
            return reply.status, reply.read()
        except (OSError, HTTPException) as why:
            self._connection.close()
            raise Unavailable(self._name, repr(why)) from why

    def _dropped(self) -> bool:
        # Between requests an open connection is silent. If there is something to read, it is the server's farewell.
        return self._connection.sock is not None and bool(select.select([self._connection.sock], [], [], 0)[0])
