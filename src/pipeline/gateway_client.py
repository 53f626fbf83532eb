"""The gateway's client: many requests under way at once, and for each an answer, or a reason to ask all of them again.

For every room that moves money, or asks what has moved. A request whose reply did not arrive is *unknown*: money may
have moved. So there is no retry in here. The caller asks again with the same key, and the gateway answers what it did
the first time.

A gateway that has failed is asked one thing, and the rest only if it answers that: it may be coming back, or be down
because of what it is asked.
"""

from __future__ import annotations

import json
import select
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlencode, urlsplit

from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AT_ONCE = 16  # requests under way, each on a connection of its own
LONGEST = 200  # characters of a refusal

OK, CREATED, DECLINED, REQUEST_TIMEOUT, TOO_MANY, SERVER_ERROR = 200, 201, 402, 408, 429, 500


class Refused(Exception):
    """The gateway will never do this."""


class Asked(NamedTuple):
    """To move money of an order, in minor units; what moves under one key moves once."""

    key: str
    order_id: str
    amount: int
    currency: str


class Request(NamedTuple):
    """In HTTP's words."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


class Gateway:
    """Moves money, at `url`. It may be silent for `silence_s`, while the transaction is open."""

    def __init__(self, url: str, silence_s: float = 3) -> None:
        self._silence_s = silence_s
        self._parts = urlsplit(url.rstrip("/"))
        self._name = f"The gateway at {url}"
        self._connections = [self._connection() for _ in range(AT_ONCE)]
        self._in_doubt = False

    def charge(self, asked: Sequence[Asked]) -> list[bool]:
        """Charge each of them once for its key, whatever the number of calls; whether it was charged, or declined.

        Raises:
            Unavailable: not all have an answer. Ask again, with the same keys.
            Refused: what is asked for is at fault.
        """
        return [self._accepted(status, text) for status, text in self._answers("charges", asked)]

    def refund(self, asked: Sequence[Asked]) -> None:
        """Give back, likewise."""
        for status, text in self._answers("refunds", asked):
            if not self._accepted(status, text):
                raise Refused(f"{self._name} declined to refund: {text[:LONGEST]}")

    def charges(self, order_id: str) -> dict[str, bool]:
        """By which keys the order was to be charged, and whether it was.

        It moves nothing. A key that is missing may be on its way.

        Raises:
            Unavailable: there is no answer.
            Refused: the answer is no list of charges.
        """
        [(status, text)] = self._together([Request("GET", f"/charges?{urlencode({'order_id': order_id})}", None, {})])
        if status != OK:
            raise Refused(f"{self._name} refused: {status} {text[:LONGEST]}")
        try:
            # Of several with one key the first has decided.
            return {record["key"]: record["effect"] for record in reversed(json.loads(text))}
        except (ValueError, LookupError, TypeError) as why:
            raise Refused(f"{self._name} has no list of charges: {text[:LONGEST]}") from why

    def close(self) -> None:
        """Hear no more of what is under way: its reply would be taken for that of the next request."""
        for connection in self._connections:
            connection.close()

    def _accepted(self, status: int, text: str) -> bool:
        if status in {OK, CREATED, DECLINED}:
            return status != DECLINED
        raise Refused(f"{self._name} refused: {status} {text[:LONGEST]}")

    def _answers(self, path: str, asked: Sequence[Asked]) -> Iterator[tuple[int, str]]:
        at = 0
        while at < len(asked):
            some = asked[at : at + (1 if self._in_doubt else AT_ONCE)]
            yield from self._together([self._post(path, one) for one in some])
            at += len(some)

    def _post(self, path: str, one: Asked) -> Request:
        body = {"order_id": one.order_id, "amount": one.amount, "currency": one.currency}
        headers = {"Idempotency-Key": one.key, "Content-Type": "application/json"}
        return Request("POST", f"/{path}", json.dumps(body).encode(), headers)

    def _together(self, requests: Sequence[Request]) -> list[tuple[int, str]]:
        """Send all of them, then hear all of them."""
        try:
            under_way = list(zip(self._connections, requests, strict=False))
            for connection, one in under_way:
                self._send(connection, one)
            answers = [self._hear(connection) for connection, _ in under_way]
        except (OSError, HTTPException) as why:
            self._in_doubt = True
            self.close()
            raise Unavailable(self._name, repr(why)) from why
        for status, text in answers:
            if status in {REQUEST_TIMEOUT, TOO_MANY} or status >= SERVER_ERROR:
                self._in_doubt = True
                raise Unavailable(self._name, f"{status} {text[:LONGEST]}")
        self._in_doubt = False
        return answers

    def _send(self, connection: HTTPConnection, one: Request) -> None:
        # Between requests an open connection is silent. If there is something to read, it is the server's farewell.
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()  # the next request opens it again
        connection.request(one.method, self._parts.path + one.path, one.body, one.headers)

    def _hear(self, connection: HTTPConnection) -> tuple[int, str]:
        reply = connection.getresponse()
        return reply.status, reply.read().decode(errors="replace")

    def _connection(self) -> HTTPConnection:
        return HTTPConnection(self._parts.hostname or "", self._parts.port, timeout=self._silence_s)
