"""Debezium as a peer: its Postgres connector and EventRouter on a Kafka Connect of one process.

`debezium` runs it for a while, from a slot to a topic; slot, publication and topic have to be there. Of each row
inserted, `payload` is the value, byte for byte, and `order_id` the key; `seq`, `type` and `traceparent` are headers,
and `event_id` is the header `id`, as EventRouter has it. Where a column is null, so is the header. The publication says
which table that is, and may leave other columns out, even the primary key. A message's timestamp is the time at which
Debezium had the row.

It is set up as fast as it was found to be, with the guarantees of our relay: every event at least once, those of an
order in their order, acknowledged by all replicas. What it has sent it confirms to the slot every 5 s and not when it
ends, so another run from the same slot sends some of it again: give each its own.

Its jars are fetched like the broker's, by the lock list beside this file (`debezium.lock`); its Java is the broker's.
It listens on 127.0.0.1 alone, at a leased port.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from chaos.errors import ChaosError, tails
from chaos.services import kafka as broker
from chaos.services.cache import Cache, Jar, fetch_jars
from chaos.services.ports import Port, lease_port
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

VERSION = "3.3.1.Final"
_NAME = "outbox"
_START_S, _STOP_S = 60.0, 10.0

_JAVA_OPTIONS = (
    "-Xmx1g",
    "-XX:+UseParallelGC",  # 47 k rows/s and 10 CPU-seconds for 300,000 rows; with G1, 38 k and 11
    "-XX:-UsePerfData",  # a file in the temporary directory that a killed runtime leaves behind
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    # It warns of types that the catalogue has twice, at each start.
    "-Dorg.slf4j.simpleLogger.log.io.debezium.connector.postgresql.TypeRegistry=error",
)
_STRINGS = "org.apache.kafka.connect.storage.StringConverter"
_WORKER = {
    "key.converter": _STRINGS,
    "value.converter": _STRINGS,
    "header.converter": _STRINGS,
    "plugin.discovery": "service_load",  # everything used here is listed in its jar: nothing has to be searched
    "topic.creation.enable": "false",  # or it would ask whether the topic is there
    "offset.flush.interval.ms": "5000",  # what is confirmed to the slot by; the default is a minute
    "producer.linger.ms": "5",
    "producer.batch.size": "262144",
    # Connect by itself has acks=all, one request under way, and idempotence off. This is as fast, and a lost reply
    # duplicates nothing.
    "producer.acks": "all",
    "producer.enable.idempotence": "true",
    "producer.max.in.flight.requests.per.connection": "5",
}
_CONNECTOR = {
    "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
    "tasks.max": "1",
    "topic.prefix": "debezium",
    "plugin.name": "pgoutput",
    "publication.autocreate.mode": "disabled",
    "snapshot.mode": "no_data",
    "max.batch.size": "8192",
    "max.queue.size": "65536",
    "extended.headers.enabled": "false",  # three more in each message, about the connector
    "transforms": "router",
    "transforms.router.type": "io.debezium.transforms.outbox.EventRouter",
    "transforms.router.table.field.event.id": "event_id",
    "transforms.router.table.field.event.key": "order_id",
    "transforms.router.table.field.event.payload": "payload",
    "transforms.router.table.fields.additional.placement": "seq:header,type:header,traceparent:header",
    "transforms.router.route.by.field": "type",  # a column there has to be; the topic is the same for all
}


@contextlib.contextmanager
def debezium(
    supervisor: Supervisor, *, database_url: str, kafka: str, slot: str, publication: str, topic: str, poll_ms: int = 5
) -> Iterator[psutil.Process]:
    """Run Debezium from `slot` to `topic`; it reads the slot when this yields its process.

    `poll_ms` is its poll.interval.ms: how long an event waits for others at most. Measured: half of the events arrive
    within 11 ms with 5, within 38 ms with 50 (and 12 ms with 1); with nothing to do it uses 0.20, 0.03 (and 0.44) of a
    processor. A backlog moves as fast with 50 as with 5.

    The process ends with the block: SIGTERM, then SIGKILL. What it said is in ``debezium.log`` among the supervisor's
    logs; why it gave up, if it did, and that log's end are added to what the block raises.

    Raises:
        MissingPart, WrongChecksum: Java or a jar.
        ProcessDied: Java ended by itself.
        NotInTime: it does not come to read the slot.
        ChaosError: the slot is not there or not free; the connector gave up, with its reason.
    """
    if _active(database_url, slot) is not False:  # it would make the slot itself, and leave it behind
        raise ChaosError(f"the slot {slot} is not there, or somebody reads it: create it, or end its reader")
    java = broker.find_java()
    cache = Cache(supervisor.own)
    jars = cache.entry(f"debezium-{VERSION}-connect-{broker.VERSION}", lambda place: _fetch(place, cache))
    directory = supervisor.run_dir / f"debezium-{len(supervisor.processes)}"
    directory.mkdir()
    with contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        port = lease_port()
        stack.callback(port.close)
        worker = {**_WORKER, "bootstrap.servers": kafka, "listeners": f"http://{port.address}"}
        worker["offset.storage.file.filename"] = str(directory / "offsets")
        connector = {**_CONNECTOR, **_database(database_url), "slot.name": slot, "publication.name": publication}
        connector |= {"transforms.router.route.topic.replacement": topic, "poll.interval.ms": str(poll_ms)}
        files = directory / "worker.properties", directory / "connector.json"
        files[0].write_text("".join(f"{name}={value}\n" for name, value in worker.items()), encoding="utf-8")
        files[1].write_text(json.dumps({"name": _NAME, "config": connector}), encoding="utf-8")
        argv = [str(java.program), *_JAVA_OPTIONS, f"-Djava.io.tmpdir={directory}", "-cp", f"{jars}/*"]
        argv += ["org.apache.kafka.connect.cli.ConnectStandalone", *map(str, files)]
        process = supervisor.spawn("debezium", argv, env={"LC_ALL": "C.UTF-8"}, cwd=directory)
        stack.callback(lambda: process.stop(Deadline(_STOP_S)))
        _require_reading(process, port, database_url, slot)
        try:
            yield psutil.Process(process.pid)
        except Exception as error:
            error.add_note(f"{_failure(port) or 'What Debezium said:'}{tails([process.log])}")
            raise
        process.require_running()


def _fetch(place: Path, cache: Cache) -> None:
    listed = Path(__file__).with_suffix(".lock").read_text(encoding="utf-8")
    fetch_jars(f"Debezium {VERSION}", Jar.read_list(listed), place, cache.progress)


def _database(url: str) -> dict[str, str]:
    parts = conninfo_to_dict(url)
    known = {"host": "hostname", "port": "port", "user": "user", "password": "password", "dbname": "dbname"}
    return {f"database.{theirs}": str(parts[ours]) for ours, theirs in known.items() if ours in parts}


def _active(database_url: str, slot: str) -> bool | None:
    """Whether somebody reads the slot; None if there is no such slot."""
    with psycopg.connect(database_url) as connection:
        found = connection.execute("select active from pg_replication_slots where slot_name = %s", [slot]).fetchone()
    return found[0] if found else None


def _require_reading(process: Process, port: Port, database_url: str, slot: str) -> None:
    def reading() -> bool:
        process.require_running()
        if why := _failure(port):
            raise ChaosError(f"{why}{tails([process.log])}")
        return _active(database_url, slot) is True

    wait_until(f"Debezium to read the slot {slot}", reading, Deadline(_START_S), logs=[process.log], every=0.05)


def _failure(port: Port) -> str:
    """What has ended the connector or its task, if anything has; Connect itself goes on."""
    try:
        with urllib.request.urlopen(f"http://{port.address}/connectors/{_NAME}/status", timeout=5) as reply:
            status = json.load(reply)
    except OSError:  # not up yet, or gone
        return ""
    traces = [one["trace"] for one in (status["connector"], *status["tasks"]) if one["state"] == "FAILED"]
    causes = [line for trace in traces for line in trace.splitlines() if not line.startswith("\t")]
    return "Debezium gave up: " + "\n".join(causes) if causes else ""
