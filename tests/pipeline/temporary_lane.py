"""Throw-away servers, until the harness provides the fixture `lane`. Delete it with its line in conftest."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from confluent_kafka.admin import AdminClient

if TYPE_CHECKING:
    from collections.abc import Iterator

PG_BIN = Path("/usr/lib/postgresql/15/bin")
JARS = Path("/tmp/mvn/libs")  # noqa: S108 - where this machine has them
PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
"""


@dataclass(frozen=True)
class Lane:
    """What the harness's lane offers to these tests."""

    postgres: str
    kafka: str
    name: str
    topics: dict[str, str]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _as_postgres(*argv: str | Path) -> list[str | Path]:
    return ["setpriv", "--reuid", "postgres", "--regid", "postgres", "--clear-groups", *argv]


def _start_postgres(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    port = _free_port()
    for directory in (home, *home.parents[:2]):
        directory.chmod(0o755)
    (home / "pg").mkdir()
    shutil.chown(home / "pg", "postgres")
    initdb = _as_postgres(PG_BIN / "initdb", "-D", home / "pg", "-A", "trust", "-U", "postgres", "-E", "UTF8")
    subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL)
    options = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-F"]
    with (home / "pg.log").open("wb") as log:
        command = _as_postgres(PG_BIN / "postgres", "-D", home / "pg", *options)
        process = subprocess.Popen(command, stdout=log, stderr=log)
    return process, f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _start_kafka(home: Path) -> tuple[subprocess.Popen[bytes], str]:
    port, config = _free_port(), home / "server.properties"
    config.write_text(PROPERTIES.format(port=port, controller=_free_port(), data=home / "kafka"))
    java = [
        "java",
        "-Xmx512m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-cp",
        ":".join(map(str, JARS.rglob("*.jar"))),
    ]
    with (home / "kafka.log").open("wb") as log:
        tool = [*java, "kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qg", "-c", str(config)]
        subprocess.run(tool, check=True, stdout=log, stderr=log)
        process = subprocess.Popen([*java, "kafka.Kafka", str(config)], stdout=log, stderr=log)
    return process, f"127.0.0.1:{port}"


@pytest.fixture(scope="session")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lane]:
    """A Postgres with the pipeline's schema and a Kafka."""
    home = tmp_path_factory.mktemp("servers")
    postgres, dsn = _start_postgres(home)
    kafka, bootstrap = _start_kafka(home)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with psycopg.connect(dsn) as connection:
                    connection.execute(Path("src/pipeline/schema.sql").read_bytes())
                break
            except psycopg.OperationalError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
        AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=30)
        yield Lane(dsn, bootstrap, f"t{os.getpid()}", {})
    finally:
        postgres.send_signal(signal.SIGINT)
        kafka.kill()
        postgres.wait()
        kafka.wait()
