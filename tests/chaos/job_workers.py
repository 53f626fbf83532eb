"""A small correct worker on all three kinds of servers, and ways for it to do something that the wire does not see.

It takes a job from a table, asks a service for its effect under the job's own key, says so on a topic, marks the job as
done, and commits. What `AROUND` names it also does over a connection of its own, opened and closed within a moment.
"""

from __future__ import annotations

import json
import logging
import os
import time
import urllib.request

import psycopg
from confluent_kafka import Consumer, Producer, TopicPartition

SCHEMA = """
    create table jobs (n serial, id text primary key, done_at timestamptz);
    create table log (id text);
    create view open_jobs as select id from jobs where done_at is null;
"""
TAKE = "select id from jobs where done_at is null order by n limit 1 for update skip locked"


def work() -> None:
    """Work until killed."""
    environ = os.environ
    producer = Producer({"bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"], "linger.ms": 0})
    producer.list_topics(timeout=5)  # a producer that has asked for nothing is slow to begin
    while True:
        try:
            _work(producer)
        except (OSError, psycopg.Error) as why:
            logging.getLogger("jobs").warning("again, after %s", why)
            time.sleep(0.02)


def _work(producer: Producer) -> None:
    with psycopg.connect(os.environ["DATABASE_URL"] + os.environ.get("MORE", "")) as session:
        while True:
            with session.transaction():
                row = session.execute(TAKE).fetchone()
                if row is not None:
                    post(os.environ["HTTP_URL"], row[0])
                    producer.produce(os.environ["TOPIC"], row[0].encode())
                    producer.flush()
                    around(row[0])
                    session.execute("update jobs set done_at = now() where id = %s", row)
            if row is None:
                time.sleep(0.005)


def post(url: str, key: str) -> None:
    """Ask the service for the effect."""
    with urllib.request.urlopen(url, json.dumps({"tag": key, "n": 1}).encode(), timeout=3) as reply:  # noqa: S310 - our own
        reply.read()


def around(key: str) -> None:
    """Do what `AROUND` says over a connection of its own."""
    environ = os.environ
    match environ.get("AROUND"):
        case "postgres":
            with psycopg.connect(environ["REAL_POSTGRES"]) as session:
                session.execute("insert into log values (%s)", [key])
        case "kafka":
            producer = Producer({"bootstrap.servers": environ["REAL_KAFKA"], "linger.ms": 0})
            producer.produce(environ["TOPIC"], b"around")
            producer.flush()
        case "offsets":
            consumer = Consumer({"bootstrap.servers": environ["REAL_KAFKA"], "group.id": f"{environ['TOPIC']}.sly"})
            consumer.commit(offsets=[TopicPartition(environ["TOPIC"], 0, 1)], asynchronous=False)
            consumer.close()
        case "http":
            post(f"http://127.0.0.1:{environ['REAL_PORT']}", key)
