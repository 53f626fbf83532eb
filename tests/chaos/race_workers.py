"""Workers that do several things at once, and faults of a third party that go wrong."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import signal
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from chaos import faults
from chaos.checkpoint import checkpoint
from chaos.wire.process import main as wire_main

if TYPE_CHECKING:
    from chaos.wire.frame import Frame

_RAW = b"\x16\x03\x01 hello, TLS\r\n\r\n"


def sink() -> None:
    """An HTTP service that appends each body to its ledger, with the time, before it answers."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            record = {**json.loads(self.rfile.read(int(self.headers["Content-Length"]))), "at": time.time()}
            os.write(ledger, json.dumps(record).encode() + b"\n")
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

        def handle_error(self, *_: object) -> None:
            pass

    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def _service() -> tuple[str, int]:
    host, _, port = os.environ["HTTP_URL"].removeprefix("http://").rpartition(":")
    return host, int(port)


def _send(method: str, tag: str) -> None:
    connection = http.client.HTTPConnection(*_service(), timeout=20)
    connection.request(method, "/", json.dumps({"tag": tag, "n": 1}))
    connection.getresponse().read()
    connection.close()


# -- one of several processes ------------------------------------------------------------------------------------------


def family() -> None:
    """A parent with a child that posts without a pause, each time over a connection of its own, and a slower sibling.

    A child that dies has a successor.
    """
    parent = os.getpid()
    _child(lambda: _slowly(f"sibling of {parent}"))
    while True:
        _child(_busily)
        os.wait()


def _child(run: Any) -> None:
    if os.fork() == 0:
        run()
        os._exit(0)


def _busily() -> None:
    for _ in range(4):
        threading.Thread(target=_for_ever, args=(str(os.getpid()),)).start()
    signal.pause()


def _for_ever(tag: str) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            _send("POST", tag)


def _slowly(tag: str) -> None:
    while True:
        _send("PUT", tag)
        time.sleep(0.005)


# -- one that does as it is told -------------------------------------------------------------------------------------


def obedient() -> None:
    """On ``POST /`` of ``{"do": […], "key": …}`` it answers and then does each of these things in the background."""
    if os.environ.get("AT_START"):
        _send("POST", "at-start")
    raw = socket.create_connection(_service())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            body = json.dumps({"pid": os.getpid()}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            for what in asked["do"]:
                threading.Thread(target=_do, args=(what, asked["key"], raw)).start()

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def _do(what: str, key: str, raw: socket.socket) -> None:
    if what == "send and exit":
        body = json.dumps({"tag": key, "n": 1}).encode()
        with socket.create_connection(_service()) as end:
            end.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            os._exit(0)
    elif what == "arrive":
        checkpoint("point")
    elif what == "raw":
        raw.sendall(_RAW)
    else:
        with contextlib.suppress(OSError, http.client.HTTPException):
            _send(what, key)


# -- a wire process with faults of a third party -----------------------------------------------------------------------


class Theirs(faults.FaultKind):
    """A fault that does the things of its value, one after the other."""

    name = "theirs"

    def check(self, value: str) -> str:
        """Anything."""
        return value

    async def act(self, frame: Frame, value: str) -> None:
        """Do as the value says."""
        for what in value.split(","):
            if what == "kill":
                await frame.kill()
            elif what == "freeze":
                await frame.freeze()
            elif what == "raise":
                raise ValueError("theirs")
            elif what == "exit":
                raise SystemExit(3)
            elif what == "for-ever":
                await asyncio.sleep(3600)


def register() -> None:
    """Have the fault in this process."""
    faults._OURS["theirs"] = f"{__name__}:Theirs"


def main() -> None:
    """A wire process that knows it."""
    register()
    wire_main()
