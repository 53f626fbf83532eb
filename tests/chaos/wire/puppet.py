"""A worker that does what it is told over HTTP, one thing at a time or several, and says how its clients took it.

``POST /`` with ``{"what", "key"}`` is answered with ``{"said"}``: ``done`` or the client's own error. It leaves traces
in the file TRACES wherever Python would run something at an end: in a ``finally``, at exit, in a delivery callback.
"""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Callable


def leave_trace(what: str) -> None:
    """Add a line to the traces."""
    with open(os.environ["TRACES"], "a", encoding="utf-8") as traces:  # noqa: PTH123 - fast and plain
        traces.write(f"{what}\n")


@functools.cache
def session(number: int) -> psycopg.Connection:
    """A session of its own for each number."""
    return psycopg.connect(os.environ["DATABASE_URL"], autocommit=True, application_name=f"puppet-{number}")


@functools.cache
def producer() -> Producer:
    """The producer, without idempotence."""
    settings = {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 0, "retries": 0}
    return Producer(settings)


@functools.cache
def consumer() -> Consumer:
    """A consumer that only commits."""
    return Consumer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "group.id": os.environ["GROUP"]})


@functools.cache
def service() -> http.client.HTTPConnection:
    """A connection to the service that is kept."""
    return http.client.HTTPConnection(os.environ["HTTP_URL"].removeprefix("http://"))


def write(key: str) -> None:
    """An autocommitted INSERT."""
    session(1).execute("INSERT INTO landed VALUES (%s)", (key,))


def simple_write(key: str) -> None:
    """An autocommitted INSERT in the simple protocol."""
    session(1).execute(f"INSERT INTO landed VALUES ('{key}')")  # noqa: S608 - so that it has no parameters


def commit(key: str) -> None:
    """A transaction."""
    with session(2).transaction():
        session(2).execute("INSERT INTO landed VALUES (%s)", (key,))


def copy(key: str) -> None:
    """A COPY."""
    with session(3).cursor().copy("COPY landed FROM STDIN") as rows:
        rows.write_row((key,))


def produce(key: str) -> None:
    """A message, its delivery awaited."""
    errors = []

    def delivered(error: object, _: object) -> None:
        leave_trace("callback")
        errors.append(error)

    producer().produce(os.environ["TOPIC"], key.encode(), key.encode(), on_delivery=delivered)
    producer().flush()
    if errors[0]:
        raise RuntimeError(errors[0])


def commit_offset(_: str) -> None:
    """A committed offset."""
    [offset] = consumer().commit(offsets=[TopicPartition(os.environ["TOPIC"], 0, 7)], asynchronous=False)
    if offset.error:
        raise RuntimeError(offset.error)


def post(key: str) -> None:
    """A POST over a connection that is kept."""
    try:
        service().request("POST", "/", json.dumps({"tag": key, "n": 1}))
        reply = service().getresponse()
        reply.read()
    except Exception:
        service().close()
        raise
    if reply.status != 201:
        raise RuntimeError(f"{reply.status} {reply.headers['Retry-After']}")


TASKS: dict[str, Callable[[str], None]] = {
    task.__name__: task for task in (write, simple_write, commit, copy, produce, commit_offset, post)
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            TASKS[asked["what"]](asked["key"])
            said = "done"
        except Exception as error:  # noqa: BLE001 - whatever the client raises is what the test wants to know
            said = f"{type(error).__name__}: {error}"
        finally:
            leave_trace("finally")
        body = json.dumps({"said": said}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main() -> None:
    """Do as told."""
    atexit.register(leave_trace, "exit")
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), _Handler).serve_forever()
