"""A ledger for an HTTP service that keeps none: the wire's own record of its requests and replies.

A line of JSON for each request other than GET, HEAD and OPTIONS, written and fsynced when the service has replied and
before the worker learns of it; so the record never knows less than the worker. A request that was let through and got
no reply is recorded when its connection ends: nobody knows whether it had an effect, and it counts as one.

``{"at", "worker", "method", "path", "status", "effect", "request", "reply", KEY}``: `effect` is true for 2xx and for no
reply at all (status null); KEY, the field that the ledger is told, is copied from the JSON object in the request or, if
the service made it, in the reply.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.wire.steps import Answer, Effect


class Recorder:
    """The record of one service. All links to it append to the same file."""

    def __init__(self, path: Path, key: str) -> None:
        self._key = key
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._open: dict[tuple[int, int], dict[str, Any]] = {}

    def request(self, connection: int, worker: str, effect: Effect) -> None:
        """A request is let through on the connection of that number."""
        head, body = (*effect.contents, b"", b"")[:2]
        method, path = [*head.split(b"\r\n", 1)[0].split(b" "), b""][:2]
        self._open[connection, effect.number] = {
            "worker": worker,
            "method": method.decode(errors="replace"),
            "path": path.decode(errors="replace"),
            "request": body.decode(errors="replace"),
        }

    def reply(self, connection: int, answer: Answer) -> None:
        """Its reply has come."""
        asked = self._open.pop((connection, answer.number), None)
        if asked is None:
            return
        head, _, body = answer.data.partition(b"\r\n\r\n")
        self._write(asked, int(head[9:12]), body.decode(errors="replace"))

    def lost(self, connection: int) -> None:
        """A connection is gone, and with it the replies that had not come."""
        for number in [number for of, number in self._open if of == connection]:
            self._write(self._open.pop((connection, number)), None, "")

    def _write(self, asked: dict[str, Any], status: int | None, reply: str) -> None:
        effect = status is None or 200 <= status < 300  # noqa: PLR2004 - the class of status codes that says done
        record = {"at": time.time(), **asked, "status": status, "effect": effect, "reply": reply}
        for text in (reply, asked["request"]):
            try:
                said = json.loads(text)
            except ValueError:
                continue
            if isinstance(said, dict) and self._key in said:
                record[self._key] = said[self._key]
        record.setdefault(self._key, None)
        os.write(self._file, json.dumps(record).encode() + b"\n")
        os.fsync(self._file)
