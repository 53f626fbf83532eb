"""Workers that send as fast as they can, over several connections at once, until they are killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import psycopg
from confluent_kafka import Producer

if TYPE_CHECKING:
    from collections.abc import Callable

_INSERT = "INSERT INTO landed (tag, sender, n) VALUES (%s, %s, %s)"
_TOGETHER = 25


def pipelined() -> None:
    """Bursts: two sessions in pipeline mode, a producer that waits for nothing, an HTTP client."""
    _run(_pipeline, _pipeline, lambda tag, _: _produce(tag, every=_TOGETHER), _post)


def one_by_one() -> None:
    """The same, each effect awaited: two sessions that commit, a producer that flushes, an HTTP client."""
    _run(_transactions, _transactions, lambda tag, _: _produce(tag, every=1), _post)


def _run(*senders: Callable[[str, int], None]) -> None:
    tag = os.environ["TAG"]
    threads = [threading.Thread(target=send, args=(tag, number)) for number, send in enumerate(senders)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _pipeline(tag: str, sender: int) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, application_name=tag) as session:
        for first in range(0, 10**9, _TOGETHER):
            with session.pipeline() as pipeline:
                for n in range(first, first + _TOGETHER):
                    session.execute(_INSERT, (tag, sender, n))
                    pipeline.sync()


def _transactions(tag: str, sender: int) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"], application_name=tag) as session:
        for n in range(10**9):
            with session.transaction():
                session.execute(_INSERT, (tag, sender, n))


def _produce(tag: str, *, every: int) -> None:
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 0})
    for n in range(10**9):
        producer.produce(os.environ["TOPIC"], f"{n}".encode(), tag.encode())
        producer.poll(0)
        if n % every == every - 1:
            producer.flush()


def _post(tag: str, _: int) -> None:
    host = os.environ["HTTP_URL"].removeprefix("http://")
    connection = http.client.HTTPConnection(host)
    for n in range(10**9):
        connection.request("POST", "/", json.dumps({"tag": tag, "n": n}))
        connection.getresponse().read()


def thirty_messages() -> None:
    """On ``POST /``, 30 messages, each a request of its own, up to five in flight; the reply when all are delivered."""
    settings = {
        "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
        "enable.idempotence": os.environ["IDEMPOTENCE"] == "on",
        "max.in.flight.requests.per.connection": 5,
        "batch.num.messages": 1,
        "linger.ms": 0,
        "reconnect.backoff.ms": 10,
        "reconnect.backoff.max.ms": 50,
        "retry.backoff.ms": 10,
    }
    producer = Producer(settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            tag = self.rfile.read(int(self.headers["Content-Length"]))
            errors: list[Any] = []
            for n in range(30):
                deliver = lambda error, _: errors.append(error) if error else None  # noqa: E731
                producer.produce(os.environ["TOPIC"], f"{n}".encode(), tag, on_delivery=deliver)
            left = producer.flush(20)
            body = json.dumps({"left": left, "errors": [str(error) for error in errors]}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with contextlib.suppress(KeyboardInterrupt):
        ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def sink() -> None:
    """An HTTP service that appends each body to its ledger, with the time, before it answers."""
    import time  # noqa: PLC0415

    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            record = {**json.loads(body), "at": time.time()}
            os.write(ledger, json.dumps(record).encode() + b"\n")
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 1024

    Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
