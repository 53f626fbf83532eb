"""Containers of a Docker engine: they are ours alone, say why they cannot be had, and leave nothing."""

from __future__ import annotations

import gc
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from chaos import ChaosError, Ledger, MissingPart, ProcessDied, ServerGone, Session, System, Worker, one_effect_per_key
from chaos.services.clients import docker
from chaos.services.container import MACHINE, RUN, Engine, machine
from chaos.services.docker import Docker, named_images
from chaos.services.ports import lease_port
from chaos.waiting import Deadline, wait_until
from chaos.workers.supervisor import Supervisor
from tests.chaos.owner import Owner, until
from tests.chaos.services.forwarder import Forwarder
from tests.fix_containers import IMAGES, WORKER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE_S = 60.0
ADDRESS = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
NEEDED = pytest.mark.docker
OWNER = """
from chaos import Session
images = json.loads(os.environ["IMAGES"])
with Session(Path(os.environ["LOGS"]), services="docker", images=images) as session:
    with session.lane(schema="", topics={}) as lane:
        by_name = {process.name: process.pid for process in session.supervisor.processes}
        tell(run=str(session.supervisor.run_dir), reaper=by_name["containers"])
        signal.pause()
"""


@pytest.fixture
def engine(containers: Session) -> Iterator[Any]:
    """A client of the engine, to look behind the scenes with."""
    containers.services.start("postgres")
    client = docker().APIClient(ADDRESS, version="auto")
    yield client
    client.close()


def of(engine: Any, label: str, value: str) -> list[str]:
    """The containers that have such a label, whether they run or not."""
    return [made["Id"] for made in engine.containers(all=True, filters={"label": f"{label}={value}"})]


@NEEDED
@pytest.mark.skipif(os.getuid() != 0, reason="only root sees whose sockets are whose")
def test_nobody_else_can_reach_them(containers: Session, engine: Any) -> None:
    """Whatever listens in a container of ours does so on the loopback interface, and nothing is published."""
    with containers.lane(schema="", topics={}, own_servers=True) as lane:
        toxiproxy = containers.services.toxiproxy
        servers = [lane.server("postgres").process, lane.server("kafka").process, toxiproxy.process]
        for one in of(engine, RUN, str(containers.supervisor.run_dir)):
            settings = engine.inspect_container(one)["HostConfig"]
            assert (settings["NetworkMode"], settings["PortBindings"] or {}) == ("host", {})
        for server in servers:
            assert server is not None
            family = {server.pid, *(one.pid for one in psutil.Process(server.pid).children(recursive=True))}
            heard = [
                str(one.laddr[:1])
                for one in psutil.net_connections("inet")
                if one.pid in family and one.status == psutil.CONN_LISTEN
            ]
            assert heard
            assert set(heard) <= {"('127.0.0.1',)", "('::ffff:127.0.0.1',)"}, server.name


@NEEDED
def test_they_are_removed_with_their_run(containers: Session, engine: Any, tmp_path: Path) -> None:
    """When a run is over nothing of it is left, nor of its data, without the reaper's help; another's is untouched."""
    with Session(tmp_path, services="docker", images=IMAGES) as session:
        with session.lane(schema="", topics={}):
            run = str(session.supervisor.run_dir)
            [reaper] = [process for process in session.supervisor.processes if process.name == "containers"]
            reaper.kill()
            mounts = [
                mount["Name"] for one in of(engine, RUN, run) for mount in engine.inspect_container(one)["Mounts"]
            ]
        assert len(of(engine, RUN, run)) == 2
    assert not of(engine, RUN, run)
    assert len(mounts) >= 2
    assert not {volume["Name"] for volume in engine.volumes()["Volumes"] or ()} & {*mounts}
    assert of(engine, RUN, str(containers.supervisor.run_dir))


@pytest.fixture
def foreign(engine: Any) -> Iterator[set[str]]:
    """Containers that are not ours: another program's, and those of another machine that shares the engine."""
    labels: list[dict[str, str]] = [{}, {RUN: "/nowhere", MACHINE: machine() + "0"}, {RUN: "/nowhere"}]
    made = {engine.create_container(WORKER, ["sleep", "600"], labels=one)["Id"] for one in labels}
    yield made
    for one in made:
        engine.remove_container(one, force=True)


@pytest.fixture
def owner(tmp_path: Path) -> Iterator[Owner]:
    """A run of its own that has two servers in containers."""
    with Owner(OWNER, tmp_path, env={"IMAGES": json.dumps(IMAGES)}) as owner:
        yield owner


@NEEDED
def test_the_run_is_killed(owner: Owner, engine: Any) -> None:
    """Who is SIGKILLed leaves no container: one process outlives it for that, and no next run has to come."""
    run = owner.told()["run"]
    assert len(of(engine, RUN, run)) == 2
    owner.end(signal.SIGKILL)
    until(lambda: not of(engine, RUN, run))


@NEEDED
def test_all_of_the_run_are_killed(
    owner: Owner, engine: Any, containers: Session, foreign: set[str], tmp_path: Path
) -> None:
    """Where that process is killed as well, the next run removes what is left, and nothing that is another's."""
    told = owner.told()
    os.kill(told["reaper"], signal.SIGKILL)
    owner.end(signal.SIGKILL)
    until(lambda: not owner.left())
    assert len(of(engine, RUN, told["run"])) == 2
    with Supervisor(tmp_path / "next") as supervisor:
        Engine(supervisor).close()
    assert not of(engine, RUN, told["run"])
    assert {made["Id"] for made in engine.containers(all=True)} >= foreign
    assert of(engine, RUN, str(containers.supervisor.run_dir))


@NEEDED
def test_a_slow_engine(tmp_path: Path, engine: Any) -> None:
    """The process that removes them is given the time that it takes."""
    there = str(tmp_path / "slow")
    with (
        Forwarder(there, ADDRESS.removeprefix("unix://")) as slow,
        Owner(OWNER, tmp_path, env={"IMAGES": json.dumps(IMAGES), "DOCKER_HOST": f"unix://{there}"}) as owner,
    ):
        run = owner.told()["run"]
        slow.delay = 1.5
        owner.end(signal.SIGKILL)
        until(lambda: not of(engine, RUN, run))


@NEEDED
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # docker-py forgets a socket that could not be connected
def test_an_engine_that_goes_away(containers: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it runs is not taken for killed; whatever is asked of it is said not to be answered."""
    with Supervisor(containers.output / "away") as supervisor:
        ours = Docker(supervisor, {})
        with Forwarder(str(tmp_path / "away"), ADDRESS.removeprefix("unix://")):
            monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/away")
            there = ours.start("there", WORKER, ["sleep", "600"], {})
        ended = there.wait(Deadline(PATIENCE_S))
        assert str(ended).startswith("cannot be seen any more: the Docker engine at unix://")
        assert ended.status != -signal.SIGKILL
        with pytest.raises(ServerGone, match=r"the Docker engine at .* cannot be spoken to"):
            there.freeze()
        with pytest.raises(ServerGone):
            ours.start("another", WORKER, ["sleep", "600"], {})
        ours.close()
        until(lambda: "onecharge-there" not in {thread.name for thread in threading.enumerate()})
        gc.collect()


@NEEDED
def test_one_engine(containers: Session) -> None:
    """Those who need it first at the same time have one, and one process that removes what it runs."""
    with Supervisor(containers.output / "one") as supervisor:
        ours = Docker(supervisor, {})
        with ThreadPoolExecutor(4) as pool:
            assert len({id(engine) for engine in pool.map(lambda _: ours.engine, range(4))}) == 1
        assert [process.name for process in supervisor.processes] == ["containers"]
        ours.close()


@NEEDED
def test_what_it_says_and_how_it_ends(containers: Session, engine: Any) -> None:
    """Its output is in its log from the first line on; a code is told from a signal; both are gone then."""
    with Supervisor(containers.output / "said") as supervisor:
        ours = Docker(supervisor, {})
        code = ours.start("code", WORKER, ["python3", "-c", "print('so be it'); raise SystemExit(3)"], {})
        assert code.wait(Deadline(PATIENCE_S)).status == 3
        with pytest.raises(ProcessDied, match=r"(?s)^code exited with code 3.*so be it"):
            code.require_running()
        killed = ours.start("killed", WORKER, ["sleep", "600"], {})
        assert killed.kill().status == -signal.SIGKILL
        assert not killed.signal(signal.SIGTERM)
        for status in (137, 255):  # as if by signals, one of them ours
            odd = ours.start("odd", WORKER, ["python3", "-c", f"raise SystemExit({status})"], {})
            assert odd.wait(Deadline(PATIENCE_S)).status == status
        until(lambda: not of(engine, RUN, str(supervisor.run_dir)))
        ours.close()


@NEEDED
def test_what_cannot_be_run(containers: Session, engine: Any) -> None:
    """The engine's own word is passed on, in one line."""
    with Supervisor(containers.output / "odd") as supervisor:
        ours = Docker(supervisor, {})
        with pytest.raises(ChaosError, match=r"^odd could not be started: .*/no/such") as raised:
            ours.engine.make("odd", WORKER, ["/no/such"], env={}, kept=True).begin()
        assert "\n" not in str(raised.value)
        assert not of(engine, RUN, str(supervisor.run_dir))
        assert [process.name for process in supervisor.processes] == ["containers"]
        ours.close()


@NEEDED
def test_what_it_is_told(containers: Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the environment of the run, of its files, and of the user's settings for containers, nothing comes in."""
    proxies = {"proxies": {"default": {"httpProxy": "http://127.0.0.1:9"}}}
    (tmp_path / "config.json").write_text(json.dumps(proxies))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("ONECHARGE_TOLD", "not this")
    script = f"import os; print(*sorted(os.environ)); print(os.path.exists({str(tmp_path)!r}))"
    with containers.lane(schema="") as lane:
        worker = Worker("told", ["python3", "-c", script.replace("{", "{{")], env={"LANE": "{lane}"}, image=WORKER)
        process = lane.start(worker)
        assert process.wait(Deadline(PATIENCE_S)).status == 0
        names, files = process.log.read_text().splitlines()
        own = {"PATH", "HOSTNAME", "HOME", "PYTHONPATH", "PYTHONUNBUFFERED", "LC_CTYPE"}  # the image's, and Python's
        assert {*names.split()} - own == {"DATABASE_URL", "LANE"}
        assert files == "False"


@NEEDED
def test_a_service_in_a_container(containers: Session) -> None:
    """It listens where it was told; told to end it ends as a process would; without words it is the image's own."""
    with containers.lane() as lane:
        web = Worker("web", "python3 -m http.server --bind 127.0.0.1 {port}", http=True, image=WORKER)
        process = lane.start(web)
        lane.require_listening(web, 0, process, Deadline(PATIENCE_S))
        assert process.stop(Deadline(PATIENCE_S)).status == -signal.SIGTERM
        own = lane.start(Worker("own", "", image=WORKER))
        assert own.wait(Deadline(PATIENCE_S)).status == 0


@NEEDED
def test_it_goes_around_the_wire(containers: Session) -> None:
    """A container that finds its own way to a server is found out, as a process is."""
    with containers.lane(schema="") as lane:
        port = int(lane.postgres.partition("@127.0.0.1:")[2].partition("/")[0])
        script = f"import socket, time; s = socket.create_connection(('127.0.0.1', {port + 1} - 1)); time.sleep(600)"
        worker = Worker("sly", ["python3", "-c", script], image=WORKER)
        rule = one_effect_per_key(Ledger(lane.files / "none.jsonl", key="none"))
        with System(lane, workers=[worker], workload=lambda _run: None, settled=[], invariants=[rule]):
            [found] = wait_until("the connection", lane.links.unseen, Deadline(PATIENCE_S))
            assert f"sly.0 is connected to 127.0.0.1:{port} directly" in found


@NEEDED
def test_it_stands_still(containers: Session, engine: Any) -> None:
    """It may be told so twice; a signal meanwhile is kept until it goes on; when it has ended nothing of it is left."""
    with Supervisor(containers.output / "still") as supervisor:
        ours = Docker(supervisor, {})
        still = ours.start("still", WORKER, ["sleep", "600"], {})
        assert still.signal(signal.SIGSTOP)
        assert still.signal(signal.SIGSTOP)
        assert still.signal(signal.SIGTERM)
        assert engine.inspect_container(still.id)["State"]["Paused"]
        assert still.exit is None
        assert still.signal(signal.SIGCONT)
        assert still.wait(Deadline(PATIENCE_S)).status == -signal.SIGTERM
        with pytest.raises(ChaosError, match=r"No such container|not running"):
            still.freeze()
        ours.close()


@NEEDED
def test_missing_image(containers: Session, tmp_path: Path) -> None:
    """It is said which, where it was looked for, and what can be done; nothing is fetched."""
    del containers
    with Session(tmp_path, services="docker", images={"kafka": "local/no-such:1"}) as session:
        with pytest.raises(MissingPart) as raised:
            session.services.start("kafka")
        assert str(raised.value) == (
            "the image local/no-such:1 is missing: looked for it among those of the Docker engine at "
            f"{ADDRESS}. Fetch it with `docker pull local/no-such:1`, or name another with "
            "--onecharge-image=kafka=IMAGE."
        )


@NEEDED
def test_no_image_at_all(containers: Session, tmp_path: Path) -> None:
    """What cannot be an image's name is not said to be missing: there is nothing to fetch."""
    del containers
    with Session(tmp_path, services="docker", images={"kafka": "local/UPPER"}) as session:
        with pytest.raises(ChaosError, match=r"^no such image: local/UPPER: .*lowercase") as raised:
            session.services.start("kafka")
        assert not isinstance(raised.value, MissingPart)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda _place: None, "No such file or directory"),
        (lambda place: place.write_text(""), "Connection refused"),
    ],
    ids=["nobody there", "no socket"],
)
def test_unreachable_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], object], reason: str
) -> None:
    """It is said where it was looked for, why that is none, and what can be done; with and without a file."""
    socket = tmp_path / "s"
    make(socket)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    with Session(tmp_path / "run", services="docker") as session, pytest.raises(MissingPart) as raised:
        session.services.start("postgres")
    assert str(raised.value) == (
        f"a Docker engine that answers is missing: looked for unix://{socket} ({reason}). Start it, name another in "
        "DOCKER_HOST, or do without: servers are plain processes by default."
    )


def test_an_engine_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that may be on another machine is not asked: what it runs could not be reached."""
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    with (
        Session(tmp_path, services="docker") as session,
        pytest.raises(ChaosError, match="it may be on another machine"),
    ):
        session.services.start("postgres")


def test_named_images() -> None:
    """What names no server, or no image, is refused; what comes later counts."""
    assert named_images(["kafka=one", "postgres=r:5000/p:18", "kafka=two"]) == {
        "kafka": "two",
        "postgres": "r:5000/p:18",
    }
    for text in ("kafka", "kafka="):
        with pytest.raises(ChaosError, match=r"expected SERVER=IMAGE"):
            named_images([text])
    with pytest.raises(ChaosError, match=r"no server with an image 'kafak': did you mean 'kafka'"):
        named_images(["kafak=one"])


def test_a_function_needs_no_image() -> None:
    """What cannot be run in an image is refused when the worker is described."""
    with pytest.raises(ChaosError, match="a function is for workers without an image"):
        Worker("one", lease_port, image=WORKER)
    with pytest.raises(ChaosError, match='kill="process" is for workers without an image'):
        Worker("one", "sleep 1", image=WORKER, kill="process")
