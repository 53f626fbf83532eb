"""Fixtures for the pipeline's plain tests: real servers, real workers, a database that starts empty."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import pipeline
from tests.pipeline.customers import Visits, stock_up, visiting
from tests.pipeline.workers import Start, Worker, free_port, starting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Session


@pytest.fixture(scope="session")
def lane(onecharge: Session) -> Iterator[Lane]:
    """A Postgres with the pipeline's schema and a Kafka, shared by all tests in this directory."""
    with onecharge.lane(schema=Path(pipeline.__file__).with_name("schema.sql"), topics={}) as lane:
        yield lane


@pytest.fixture
def start(onecharge: Session, tmp_path: Path) -> Iterator[Start]:
    """Starts a worker by name, with variables for its environment."""
    with starting(onecharge.supervisor, tmp_path) as function:
        yield function


@pytest.fixture(scope="module")
def api(onecharge: Session, lane: Lane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """The API, listening."""
    with starting(onecharge.supervisor, tmp_path_factory.mktemp("api")) as function:
        yield function("api", DATABASE_URL=lane.postgres, PORT=free_port()).listening()


@pytest.fixture
def gateway(start: Start, tmp_path: Path) -> Worker:
    """A gateway with an empty ledger, listening."""
    return start("gateway", PORT=free_port(), LEDGER=tmp_path / "charges.jsonl").listening()


@pytest.fixture
def db(lane: Lane) -> Iterator[psycopg.Connection]:
    """A connection to the lane's database, whose tables are empty, and whose shards are free."""
    with psycopg.connect(lane.postgres, autocommit=True) as connection:
        connection.execute("truncate orders, outbox, idempotency_keys, inbox, payments; delete from relays")
        yield connection


@pytest.fixture
def shop(db: psycopg.Connection) -> psycopg.Connection:
    """Something to buy."""
    return stock_up(db)


@pytest.fixture
def visit(start: Start, lane: Lane, api: Worker, shop: psycopg.Connection) -> Iterator[Visits]:  # noqa: ARG001 - goods
    """Customers of a page, whose settings may differ; each has their own browser."""
    with visiting(start, lane.postgres, api) as visits:
        yield visits


@pytest.fixture
def namespace(lane: Lane) -> str:
    """A namespace that nobody used before, with its orders topic."""
    name = f"{lane.name}.{time.time_ns()}"
    admin = AdminClient({"bootstrap.servers": lane.kafka})
    for created in admin.create_topics([NewTopic(f"{name}.orders", 2, 1)]).values():
        created.result()
    return name
