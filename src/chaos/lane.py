"""A lane: a namespace of its own on shared servers, and the workers that run in it.

A lane has its own database, its own topics, and a name that keeps its consumer groups apart from other lanes'. Lanes
share the servers, so several can be used side by side.

What a worker is told, in its environment: ``DATABASE_URL``, ``KAFKA_BOOTSTRAP_SERVERS``, ``PORT`` if it serves HTTP,
and whatever `Worker.env` names. Values there, and the words of a command line, may contain

    {postgres} {kafka}          URL of the lane's database; bootstrap servers
    {lane}                      the lane's name, for consumer groups and the like
    {topics[orders]}            full name of the lane's topic "orders"
    {replica} {port} {files}    number of the replica from 0; port to listen on; a directory of the lane's own

A literal brace is written twice. A function's module is imported beforehand, in the warm parent: what it reads from the
environment at import time is not what the worker is told.
"""

from __future__ import annotations

import functools
import itertools
import os
import socket
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from chaos.errors import ChaosError, UnknownName
from chaos.invariants import Ledger
from chaos.links import Links
from chaos.services.clients import FIND_AGAIN, confluent_kafka, psycopg
from chaos.services.detours import answers
from chaos.services.ports import Port, lease_port, require_free
from chaos.services.server import Server
from chaos.waiting import Deadline, wait_until
from chaos.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from chaos.errors import Told
    from chaos.services.docker import Docker
    from chaos.services.kafka import Kafka
    from chaos.services.postgres import Postgres
    from chaos.services.toxiproxy import Toxiproxy
    from chaos.sweep import Shard
    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

_START_S = 30.0
_PRODUCE_S = 10.0
_READ_S = 2.0
READER = {  # of a consumer that reads up to an end, and leaves no trace
    "enable.partition.eof": True,
    "enable.auto.commit": False,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "fetch.wait.max.ms": 10,
    "log_level": 0,
    **FIND_AGAIN,
}


@dataclass
class Trusted(Server):
    """A worker that is never broken, but for what befalls servers. Its `ledger` is what drills are judged by."""

    name: str
    url: str
    ledger: Ledger
    process: Process
    again: Callable[[], Process]
    listens: Sequence[Port] = ()  # none to be looked at: whoever starts a worker does that

    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until it answers over HTTP: the kernel accepts connections for who stands still."""

        def answer() -> bool:
            self.process.require_running()
            return answers(self.url.rpartition("/")[2], "http")

        what = f"{self.name} at {self.url} to answer"
        wait_until(what, answer, deadline, retry_on=(OSError,), logs=[self.process.log], every=0.005)


@dataclass
class Recorded:
    """An HTTP service of which the wire keeps the `ledger`."""

    url: str
    ledger: Ledger


class Lane:
    """See the module's docstring. Made by `chaos.session.Session.lane`.

    Workers run in the project's `directory`; `files` is a directory of the lane's own.
    """

    def __init__(
        self,
        name: str,
        supervisor: Supervisor,
        *,
        files: Path,
        directory: Path,
        postgres: Postgres | None,
        kafka: Kafka | None,
        topics: Mapping[str, int],
        toxiproxy: Callable[[], Toxiproxy],
        docker: Docker,
        own_servers: bool = False,
    ) -> None:
        self.name, self.supervisor, self.files, self.directory = name, supervisor, files, directory
        self.topics = {short: f"{name}.{short}" for short in topics}
        self.postgres = postgres.database_url(name) if postgres else ""
        self.kafka = kafka.bootstrap if kafka else ""
        self._kafka, self._partitions = kafka, topics
        self._servers: dict[str, Server] = {one.name: one for one in (postgres, kafka) if one is not None}
        self._own_servers, self._docker = own_servers, docker
        self.links = Links(supervisor, name, postgres=self.postgres, kafka=kafka, toxiproxy=toxiproxy)
        self._ports: dict[tuple[str, int], Port] = {}
        self._trusted: dict[str, Trusted] = {}
        self._processes: list[Process] = []
        self._connection: Any = None
        self._stale = False
        self._producer: Any = None
        self._reader: Any = None
        self.evidence: list[str] = []  # of what the harness itself has written: see `chaos.audit`
        self.on_verdict: Callable[[Told], None] = lambda _verdict: None
        self.shard: Shard | None = None
        self.live: Callable[[str], None] = lambda _text: None

    def listen(self, on_arrival: Callable[[str, str, int], bool] | None) -> None:
        """Hear this lane's workers: ("payment.0~1", checkpoint, pid); what is returned lets them go on or not."""
        if on_arrival is None:
            self.supervisor.listeners.pop(self.name, None)
        else:
            self.supervisor.listeners[self.name] = on_arrival

    @property
    def services(self) -> Mapping[str, Trusted]:
        """The trusted workers, by name."""
        return self._trusted

    def server(self, name: str) -> Server:
        """``postgres``, ``kafka`` or a trusted worker, to kill, freeze, end, or start again: `chaos.services.server`.

        Raises:
            UnknownName: the lane has no such server.
            ChaosError: other lanes use it.
        """
        if name in self._trusted:
            return self._trusted[name]
        if name not in self._servers:
            raise UnknownName("server", name, [*self._servers, *self._trusted])
        if not self._own_servers:
            msg = f"{name} is not lane {self.name}'s own: other drills use it. Make the lane with own_servers=True"
            raise ChaosError(msg)
        return self._servers[name]

    def forget_connections(self) -> None:
        """A server was killed: what was open to it is not any more, and nobody has said so. From any thread."""
        self._stale = True

    @property
    def kafka_admin(self) -> Any:
        """A client for administration of the lane's cluster. Ask `committed` where groups stand."""
        return self._cluster.admin

    def renew_kafka_clients(self) -> None:
        """Have other clients of Kafka in place of the lane's: those have dropped a broker that said there was none."""
        self._cluster.renew_clients()
        self._producer = self._reader = None

    def committed(self, group: str, partitions: Sequence[Any]) -> dict[tuple[str, int], int]:
        """Where a consumer group stands, by topic and number of the partition; nothing where it has committed nothing.

        `partitions` are `confluent_kafka.TopicPartition`.

        Raises:
            confluent_kafka.KafkaException: the cluster does not know now, or does not answer in time.
        """
        return self._cluster.committed(group, partitions)

    @property
    def _cluster(self) -> Kafka:
        if self._kafka is None:
            msg = f"lane {self.name} has no Kafka: name its topics when you make it"
            raise ChaosError(msg)
        return self._kafka

    def partitions(self, topic: str) -> list[Any]:
        """All partitions of the lane's topic with that short name, as `confluent_kafka.TopicPartition`."""
        make = confluent_kafka().TopicPartition
        return [make(self.topics[topic], number) for number in range(self._partitions[topic])]

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a statement in the lane's database, committed at once, and return its rows."""
        client = psycopg()
        try:
            with self._connected().transaction():
                rows = self._rows(statement, parameters)
                [(xid,)] = self._rows("SELECT txid_current_if_assigned()")
        except client.errors.ActiveSqlTransaction:  # such as VACUUM, which commits by itself
            return self._rows(statement, parameters)
        if xid is not None:
            self.evidence.append(f"xid:{xid % 2**32}")
        return rows

    def look(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query that changes nothing; for conditions, which ask often."""
        self._connected()
        return self._rows(query)

    def _connected(self) -> Any:
        if self._stale and self._connection is not None:
            self._connection.close()
        if self._connection is None or self._connection.closed:
            self._stale = False
            self._connection = psycopg().connect(self.postgres, autocommit=True, application_name="onecharge")
        return self._connection

    def _rows(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(statement, parameters or None)  # a lone % is one
        return [] if cursor.description is None else list(cursor)  # rows of no columns are rows, too

    def produce(self, topic: str, value: bytes, key: bytes | None = None) -> None:
        """Put a message on the lane's topic with that short name, and return when the broker has it.

        Raises:
            ChaosError: the broker has not taken it.
        """
        reports: list[Any] = []
        if self._producer is None:
            self._cluster  # noqa: B018 - says what is missing where there is no Kafka
            settings = {
                "bootstrap.servers": self.kafka,
                "linger.ms": 0,
                "partitioner": "murmur2_random",
                "log_level": 0,
                **FIND_AGAIN,
            }
            self._producer = confluent_kafka().Producer(settings)
        self._producer.produce(self.topics[topic], value, key, on_delivery=lambda *report: reports.append(report))
        self._producer.flush(_PRODUCE_S)
        error, taken = reports[0] if reports else ("no report in time", None)
        if taken is None or error is not None:
            raise ChaosError(f"the topic {topic!r} did not take a message: {error}")
        self.evidence.append(f"log:{taken.topic()}/{taken.partition()}:{taken.offset()}-{taken.offset()}")

    def nothing_left(self, places: Sequence[Any], ends: Mapping[int, int]) -> list[int]:
        """The partitions of a topic with no message between place and end, for a reader of what is committed.

        `places` are `confluent_kafka.TopicPartition` with an offset. A transaction that is under way may bring one.
        """
        kafka = confluent_kafka()
        if self._reader is None:
            self._reader = kafka.Consumer({"bootstrap.servers": self.kafka, "group.id": f"{self.name}.reader"} | READER)
        self._reader.assign(places)
        unknown, empty, deadline = {place.partition for place in places}, list[int](), Deadline(_READ_S)
        while unknown and (message := self._reader.poll(deadline.left)) is not None:
            number, error = message.partition(), message.error()
            at_end = error is not None and error.code() == kafka.KafkaError._PARTITION_EOF  # noqa: SLF001 - its public name
            if number in unknown and at_end and message.offset() >= ends[number]:
                empty.append(number)
            unknown.discard(number)
        self._reader.unassign()
        return empty

    def close(self) -> None:
        """End the lane's workers and its wire, its own connection, and the leases of its ports."""
        for process in self._processes:  # first, as the addresses that it knows will be given to others
            if process.exit is None:
                process.kill()
        self.links.close()
        if self._connection is not None:
            self._connection.close()
        if self._reader is not None:
            self._reader.close()
        self._producer = None  # it would go on calling at an address that is another's soon
        for port in self._ports.values():
            port.close()

    def fill(self, text: str, **more: object) -> str:
        """`text` with the lane's placeholders filled in."""
        values = {"postgres": self.postgres, "kafka": self.kafka, "lane": self.name, "topics": self.topics}
        try:
            return text.format(**{**values, "files": self.files, **more})
        except (KeyError, IndexError, ValueError) as error:
            msg = (
                f"{text!r} has a placeholder that lane {self.name} cannot fill: {error!r} (a literal brace is doubled)"
            )
            raise ChaosError(msg) from error

    def port(self, worker: Worker, replica: int) -> Port:
        """The port that a replica listens on, the same for all its incarnations."""
        key = (worker.name, replica)
        if key not in self._ports:
            self._ports[key] = lease_port()
        return self._ports[key]

    def start(
        self,
        worker: Worker,
        *,
        replica: int = 0,
        incarnation: int = 0,
        preload: Sequence[str] = (),
        wired: bool = False,
    ) -> Process:
        """Start one process of a worker; if it is `wired`, it is told its links' addresses instead of the servers'."""
        label = f"{worker.name}.{replica}"
        postgres = self.links.postgres(label) if wired else self.postgres
        kafka = self.links.kafka(label) if wired else self.kafka
        env = {} if worker.image else dict(os.environ)
        env |= {"DATABASE_URL": postgres} if postgres else {}
        env |= {"KAFKA_BOOTSTRAP_SERVERS": kafka} if kafka else {}
        more: dict[str, object] = {"replica": replica, "postgres": postgres, "kafka": kafka}
        if worker.http:
            port = self.port(worker, replica)
            require_free([port], label)
            more["port"] = port
            env["PORT"] = str(port)
        translate = functools.partial(self.links.translate, label) if wired else str
        env |= {name: translate(self.fill(value, **more)) for name, value in worker.env.items()}
        if not worker.image:
            env |= self.supervisor.checkpoint_environment(f"{self.name}/{label}~{incarnation}")
        log = f"{self.name}-{label}"
        if worker.call is not None:
            zygote = self.supervisor.zygote(sorted({worker.call.partition(":")[0], *preload}))
            process: Process = zygote.fork(log, worker.call, env=env, cwd=self.directory)
        else:
            argv = [translate(self.fill(word, **more)) for word in worker.argv]
            if worker.image:
                process = self._docker.start(log, worker.image, argv, env)
            else:
                process = self.supervisor.spawn(log, argv, env=env, cwd=self.directory)
        self._processes.append(process)
        return process

    def require_listening(
        self,
        worker: Worker,
        replica: int,
        process: Process,
        deadline: Deadline,
        *,
        unless: Callable[[], bool] = lambda: False,
    ) -> None:
        """Wait until a replica accepts connections, or until `unless`.

        Raises:
            NotInTime: it does not.
            ProcessDied: it ended by itself.
        """
        port = self.port(worker, replica)

        def connect() -> bool:
            if unless():
                return True
            process.require_running()
            socket.create_connection(("127.0.0.1", port.number), timeout=1).close()
            return True

        what = f"{worker.name} to listen on {port.address}"
        wait_until(what, connect, deadline, retry_on=(OSError,), logs=[process.log], every=0.005)

    def trusted(
        self,
        name: str,
        run: Callable[[], object] | str | Sequence[str],
        *,
        ledger: str,
        key: str,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> Trusted:
        """Start an HTTP service that is never broken, and wait until it listens.

        `ledger` is the file in which it records the requests it has served, before it answers; it is told the path as
        ``LEDGER``. `key` is the records' field that says which key a request was for.
        """
        if name in self._trusted:
            msg = f"lane {self.name} has a trusted worker {name!r} already"
            raise ChaosError(msg)
        path = self.files / ledger
        worker = Worker(name, run, env={**env, "LEDGER": str(path).replace("{", "{{").replace("}", "}}")}, http=True)
        label, lives = f"{name}.0", itertools.count()

        def start() -> Process:
            self.links.enlist(label, name, 0, life=next(lives))  # so that what it writes to our own servers is known
            process = self.start(worker, wired=True)
            self.links.started(label, process.pid)
            return process

        url = f"http://{self.port(worker, 0).address}"
        made = Trusted(name, url, Ledger(path, key=key), start(), start)
        self.require_listening(worker, 0, made.process, Deadline(_START_S))
        self.links.add_service(url, name=name)
        self._trusted[name] = made
        return made

    def recorder(self, url: str, *, ledger: str, key: str) -> Recorded:
        """Have the wire keep the ledger of an HTTP service that keeps none.

        `ledger` is the file, `key` the field, of the JSON in its requests or replies, that says what a request is for.
        Workers are told the service's `url` as they would be, and reach it through the wire. See `chaos.wire.recorder`.
        """
        path = self.files / ledger
        self.links.add_service(url, path, key)
        return Recorded(url, Ledger(path, key=key))
