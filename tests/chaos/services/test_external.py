"""Servers that somebody else runs are used through the same interface, and are told apart from ours in nothing else."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer

from chaos import Session
from chaos.errors import NotInTime
from chaos.services import external
from chaos.services.external import External
from chaos.services.ports import lease_port

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.services.local import Local


def test_lane_on_external_servers(servers: Local, tmp_path: Path) -> None:
    """A lane on given addresses has its database and topics, starts no server, and leaves nothing there."""
    dsn, bootstrap = servers.postgres.dsn, servers.kafka.bootstrap
    with Session(tmp_path, postgres=dsn, kafka=bootstrap) as session:
        with session.lane(schema="CREATE TABLE t (n int)", topics={"orders": 2}) as lane:
            lane.execute("INSERT INTO t VALUES (%s)", [7])
            assert lane.execute("SELECT n FROM t") == [(7,)]
            producer = Producer({"bootstrap.servers": lane.kafka})
            producer.produce(lane.topics["orders"], b"value")
            assert producer.flush(10) == 0
            assert len(lane.partitions("orders")) == 2
            name = lane.name
        assert [process.name for process in session.supervisor.processes] == []

    assert servers.postgres.process is not None
    assert servers.postgres.process.exit is None
    with Session(tmp_path / "after", postgres=dsn) as session, session.lane(schema="SELECT 1") as lane:
        assert lane.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]) == []
    assert f"{name}.orders" not in servers.kafka.admin.list_topics(timeout=10).topics


@pytest.mark.parametrize("kind", ["postgres", "kafka"])
def test_unreachable(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that does not answer is named with its address within the deadline."""
    monkeypatch.setattr(external, "_REACH_S", 1.0)
    port = lease_port()
    addresses = {"postgres": f"host=127.0.0.1 port={port} user=u password=secret", "kafka": port.address}
    began = time.monotonic()

    with pytest.raises(NotInTime) as raised:
        getattr(External(**{kind: addresses[kind]}), kind)

    assert time.monotonic() - began < 3
    assert f"waited 1 s for {kind.title()} at {port.address} to answer; last seen: " in str(raised.value)
    assert "secret" not in str(raised.value)
    port.close()


def test_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Postgres that takes the connection and then says nothing does not hold anybody longer than the deadline."""
    import socket  # noqa: PLC0415 - only here

    monkeypatch.setattr(external, "_REACH_S", 1.0)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NotInTime):
        _ = External(postgres=f"host=127.0.0.1 port={silent.getsockname()[1]} user=u").postgres

    assert time.monotonic() - began < 5


def test_not_given() -> None:
    """What was not given is not there."""
    assert External().postgres is None
    assert External().kafka is None
