"""Workers by which a denominator was once wrong, or a correct system accused."""

from __future__ import annotations

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg
from confluent_kafka import Consumer, Producer

from tests.chaos.job_workers import TAKE, around, post

LEASED = """
    update jobs set lease = now() + '0.7 s'
    where id = (select id from jobs where done_at is null and lease < now() limit 1) returning id
"""
LEASES = """
    create table jobs (n serial, id text primary key, done_at timestamptz, lease timestamptz default now());
    create view open_jobs as select id from jobs where done_at is null and lease < now();
"""


def careless_api() -> None:
    """An HTTP server that asks for the effect again when it is asked again."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            post(os.environ["HTTP_URL"], body["id"])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()


def _job(session: psycopg.Connection) -> str:
    """Do one job, if there is one, and return its id."""
    with session.transaction():
        row = session.execute(TAKE).fetchone()
        if row is None:
            return ""
        post(os.environ["HTTP_URL"], row[0])
        session.execute("update jobs set done_at = now() where id = %s", row)
        return str(row[0])


def calling() -> None:
    """Does jobs; calls a procedure that does nothing for each, and goes around the wire."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            if done := _job(session):
                session.execute("call noop()")
                around(done)
            time.sleep(0.005)


def ticking() -> None:
    """Does jobs; a thread of it says something on a topic each millisecond."""
    producer = Producer({"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 0})

    def tick() -> None:
        while True:
            producer.produce(os.environ["TOPIC"], b"tick")
            producer.poll(0)
            time.sleep(0.001)

    threading.Thread(target=tick, daemon=True).start()
    with psycopg.connect(os.environ["DATABASE_URL"]) as session:
        while True:
            _job(session)
            time.sleep(0.005)


def leasing() -> None:
    """Does jobs under a lease of 0.7 s, after which what a dead one had taken is taken again."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            if row := session.execute(LEASED).fetchone():
                post(os.environ["HTTP_URL"], row[0])
                session.execute("update jobs set done_at = now() where id = %s", row)
            time.sleep(0.01)


def keeping_books() -> None:
    """Does jobs; notes something about no key ahead of each, and clears that a moment after the last."""
    due = 0.0
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            if session.execute("select from open_jobs limit 1").fetchone() is not None:
                with session.transaction():
                    session.execute("insert into log values ('before')")
                _job(session)
                due = time.monotonic() + 0.03
            elif due and time.monotonic() > due:
                with session.transaction():
                    session.execute("delete from log")
                due = 0.0
            time.sleep(0.002)


def repeating() -> None:
    """Does jobs, and asks for the effect once more when all is done."""
    again: list[tuple[float, str]] = []
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            if done := _job(session):
                again.append((time.monotonic() + 0.06, done))
            elif again and again[0][0] < time.monotonic():
                post(os.environ["HTTP_URL"], again.pop(0)[1])
            time.sleep(0.003)


def by_number() -> None:
    """Reads a topic whose messages say a job by its number, which is no key."""
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": os.environ["GROUP"],
            "group.instance.id": "only",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 20,
        }
    )
    consumer.subscribe([os.environ["TOPIC"]])
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as session:
        while True:
            message = consumer.poll(0.05)
            if message is not None and message.error() is None:
                row = session.execute("select id from jobs where n = %s", [int(message.value() or b"0")]).fetchone()
                post(os.environ["HTTP_URL"], row[0] if row else "")
                consumer.commit(message=message, asynchronous=False)


def sink_with_a_table() -> None:
    """A trusted service that also writes to the lane's database."""
    ledger = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with psycopg.connect(os.environ["DATABASE_URL"]) as session:
                session.execute("insert into log values (%s)", [body["tag"]])
            os.write(ledger, json.dumps(body).encode() + b"\n")
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
