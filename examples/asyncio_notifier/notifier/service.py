"""The text message service. What is in its log has been sent: one line for each request, on disk before the answer."""

import json
import os
from pathlib import Path

from aiohttp import web


class Log:
    """Every request, and whether it had an effect: the first one with its key has."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._keys = {json.loads(line)["key"] for line in Path(path).read_text(encoding="utf-8").splitlines()}

    def add(self, key: str, message: dict[str, str]) -> bool:
        """Decide, write, and return the effect."""
        effect = key not in self._keys
        os.write(self._file, json.dumps({"key": key, **message, "effect": effect}).encode() + b"\n")
        os.fdatasync(self._file)
        self._keys.add(key)
        return effect


def main() -> None:
    """Serve until killed."""
    log = Log(os.environ["LEDGER"])

    async def send(request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        effect = log.add(key, await request.json())
        return web.json_response({"receipt": f"receipt-of-{key}"}, status=201 if effect else 200)

    app = web.Application()
    app.router.add_post("/messages", send)
    web.run_app(app, host="127.0.0.1", port=int(os.environ["PORT"]), print=None, access_log=None)


if __name__ == "__main__":
    main()
