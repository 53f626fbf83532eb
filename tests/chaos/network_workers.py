"""A system for bad networks: two couriers that post what lies in a directory of their own to one service."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos import Condition, System, Worker, nothing_lost, one_effect_per_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane, Run, Session

WORKERS = ("near", "far")
TIMEOUT_S = 0.2
DELIVERED, AGAIN = 201, 200


def courier() -> None:
    """Post each, and again until somebody has said that it is there. The near one keeps its connection."""
    place, url = Path(os.environ["ORDERS"]), os.environ["HTTP_URL"]
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    while True:
        for order in sorted(place.iterdir()):
            try:
                connection.request("POST", "/", json.dumps({"tag": order.name}))
                reply = connection.getresponse()
                reply.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(0.02)
            else:
                if reply.status in {DELIVERED, AGAIN}:
                    order.unlink()
                if place.name == "far":
                    connection.close()
        time.sleep(0.005)


def forgetful() -> None:
    """A service that notes whatever it is sent."""
    _serve(lambda _tag: True)


def once() -> None:
    """A service that notes each thing once, and knows what it has noted before it was killed."""
    path = Path(os.environ["LEDGER"])
    known = {json.loads(line)["tag"] for line in path.read_text().splitlines()} if path.exists() else set[str]()
    lock = threading.Lock()

    def is_new(tag: str) -> bool:
        with lock:
            new = tag not in known
            known.add(tag)
        return new

    _serve(is_new)


def _serve(is_new: Callable[[str], bool]) -> None:
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            tag = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["tag"]
            new = is_new(tag)
            if new:
                os.write(ledger, json.dumps({"tag": tag}).encode() + b"\n")
            self.send_response(DELIVERED if new else AGAIN)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """A reset is nothing to be told."""

    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def send(run: Run, *workers: str) -> None:
    """Something to do for each courier, or for these."""
    for worker in workers or WORKERS:
        key = run.new_key()
        run.accept(key)
        (run.lane.files / worker / key).touch()


def waiting(lane: Lane) -> str:
    """What was not delivered yet."""
    left = sum(len(list((lane.files / worker).iterdir())) for worker in WORKERS)
    return f"{left} wait" if left else ""


@contextlib.contextmanager
def couriers(
    session: Session,
    service: Callable[[], object] = once,
    *,
    workload: Callable[[Run], object] = send,
    until_answered: bool = True,
    within: float = 20.0,
) -> Iterator[System]:
    """The system, in a lane of its own. Its drills last until each courier was answered, or only until all is there."""
    with session.lane() as lane:
        for worker in WORKERS:
            (lane.files / worker).mkdir()
        depot = lane.trusted("depot", service, ledger="depot.jsonl", key="tag")
        workers = [
            Worker(name, courier, env={"ORDERS": f"{{files}}/{name}", "HTTP_URL": depot.url}) for name in WORKERS
        ]
        with System(
            lane,
            workers=workers,
            workload=workload,
            settled=[Condition("nothing waits", waiting)] if until_answered else [],
            invariants=[one_effect_per_key(depot.ledger), nothing_lost(depot.ledger)],
            grace=0.2,
            within=within,
        ) as system:
            yield system
