"""The mail service. A mail is sent when it is in the log: one line for each request, on disk before the answer."""

import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Log:
    """Every request, and whether it had an effect: the first one with its key has."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        self._lock = threading.Lock()
        self._keys = {json.loads(line)["key"] for line in Path(path).read_text(encoding="utf-8").splitlines()}

    def add(self, key: str, mail: dict[str, str]) -> bool:
        """Decide, write, and return the effect."""
        with self._lock:
            effect = key not in self._keys
            os.write(self._file, json.dumps({"key": key, **mail, "effect": effect}).encode() + b"\n")
            os.fdatasync(self._file)
            self._keys.add(key)
        return effect


def main() -> None:
    """Serve until killed."""
    log = Log(os.environ["LEDGER"])

    class Mails(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            mail = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            effect = log.add(self.headers["Idempotency-Key"], mail)
            self.send_response(201 if effect else 200)
            self.end_headers()

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Mails).serve_forever()


if __name__ == "__main__":
    main()
