"""Servers that are away when a worker starts: it waits, says so, and works when they come. It ends when asked, too."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.pipeline.workers import Gate, free_port, paid, place, unpublished, until

if TYPE_CHECKING:
    import psycopg

    from chaos import Lane
    from tests.pipeline.workers import Start, Worker


@pytest.fixture
def env(lane: Lane, namespace: str, gateway: Worker) -> dict[str, object]:
    """What relay and payment are told."""
    return {
        "DATABASE_URL": lane.postgres,
        "KAFKA_BOOTSTRAP_SERVERS": lane.kafka,
        "NAMESPACE": namespace,
        "GATEWAY_URL": f"http://127.0.0.1:{gateway.port}",
    }


def gate(env: dict[str, object], server: str) -> tuple[Gate, dict[str, object]]:
    """A gate in front of a server, closed, and an environment that leads through it."""
    if server == "Postgres":
        dsn = str(env["DATABASE_URL"])
        parts = conninfo_to_dict(dsn)
        closed = Gate(str(parts["host"]), int(str(parts["port"])))
        return closed, env | {"DATABASE_URL": make_conninfo(dsn, port=closed.port)}
    host, port = str(env["KAFKA_BOOTSTRAP_SERVERS"]).split(":")
    closed = Gate(host, int(port))
    return closed, env | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{closed.port}"}


@pytest.mark.parametrize("server", ["Postgres", "Kafka"])
def test_the_relay_waits_and_says_so(start: Start, db: psycopg.Connection, env: dict[str, object], server: str) -> None:
    """A relay names the server it waits for, and publishes what is there when it comes."""
    closed, through = gate(env, server)
    place(db, 1)
    relay = start("relay", **through)
    assert relay.said(f"{server} at 127.0.0.1:{closed.port}.*Events stay in the outbox; trying again")
    closed.open()
    until(lambda: not unpublished(db))
    assert relay.ended() == 0


@pytest.mark.parametrize("server", ["Postgres", "Kafka"])
def test_the_consumer_waits_and_says_so(
    start: Start, db: psycopg.Connection, env: dict[str, object], server: str
) -> None:
    """A payment consumer names the server it waits for, and charges what is there when it comes."""
    closed, through = gate(env, server)
    payment = start("payment", **through)
    assert payment.said(f"{server} at 127.0.0.1:{closed.port}.*trying again")
    order_id = place(db, 1)
    start("relay", **env)
    closed.open()
    until(partial(paid, db, order_id))
    assert payment.ended() == 0


@pytest.mark.parametrize("worker", ["relay", "payment"])
def test_a_missing_topic_is_waited_for(start: Start, env: dict[str, object], worker: str) -> None:
    """A worker whose topic does not exist yet says which; a relay makes it meanwhile."""
    waiting = start(worker, **env | {"NAMESPACE": f"nobody-{worker}"})
    assert waiting.said(f"nobody-{worker}.orders")
    assert worker == "payment" or waiting.said("Back after")


@pytest.mark.parametrize("worker", ["relay", "payment"])
def test_a_waiting_worker_ends_when_asked(start: Start, env: dict[str, object], worker: str) -> None:
    """SIGTERM ends a worker orderly even while everything is away."""
    port = free_port()
    nowhere = {"DATABASE_URL": f"postgresql://127.0.0.1:{port}/x", "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"}
    waiting = start(worker, **env | nowhere)
    assert waiting.said(f"127.0.0.1:{port}")
    assert waiting.ended() == 0


def test_a_lost_connection_is_made_anew(start: Start, db: psycopg.Connection, env: dict[str, object]) -> None:
    """Workers whose Postgres sessions are terminated go on by themselves, and lose nothing."""
    relay, payment = start("relay", **env), start("payment", **env)
    for _ in range(3):
        order_id = place(db, 1)
        until(partial(paid, db, order_id))
        db.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where pid <> pg_backend_pid() and datname = current_database() and application_name <> 'onecharge'"
        )
    assert relay.said("Back after")
    assert payment.said("Back after")
