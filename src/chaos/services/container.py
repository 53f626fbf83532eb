"""Containers: processes that a Docker engine runs, started, killed, frozen and removed through it.

A container shares the network of this machine: what listens in it listens on the loopback interface, at a port that was
leased as any other, and nothing is published. So nobody else can reach it, each of Kafka's listeners has its address
without a mapping, and whoever works in it is seen on the wire as other workers are. The engine has to be one of this
machine's, then.

Each carries two labels: ``onecharge.run``, the run's directory, which is removed when the run has ended, whoever was
killed; and ``onecharge.machine``, by whom that directory can be seen. They are removed with the run, by a process that
outlives it for that (`chaos.services.reaper`); those of a run whose directory is gone, by the next run that needs the
engine. Those of other users, of other machines and of other programs are left alone.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.errors import ChaosError, MissingPart
from chaos.services import reaper
from chaos.services.clients import docker, require_client
from chaos.waiting import Deadline
from chaos.workers import proc
from chaos.workers.process import Exit, Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.workers.supervisor import Supervisor

RUN, MACHINE = "onecharge.run", "onecharge.machine"
_DEATH_S = 10.0
_BY_SIGNAL = 128  # an exit code above it says which signal it was
_SCHEME = "unix://"
_DEFAULT = f"{_SCHEME}/var/run/docker.sock"


class Container(Process):
    """A container that was made, and runs from `begin` on. `pid` is its first process'."""

    def __init__(self, supervisor: Supervisor, name: str, log: Path, engine: Any, made: str, *, kept: bool) -> None:
        super().__init__(supervisor, name, log)
        self.id = made
        self._engine, self._kept = engine, kept
        self._frozen = False
        self._pending: list[int] = []  # signals for when it goes on: the engine would have it go on at once

    def begin(self) -> Container:
        """Start it, for the first time or on the data that it has.

        Raises:
            ChaosError: the engine refused it; with what it said.
        """
        output = self._engine.attach(self.id, stream=True)  # before it starts, so that nothing of it is missed
        try:
            self._engine.start(self.id)
        except docker().errors.APIError as error:
            _close(output)
            raise ChaosError(f"{self.name} could not be started: {error.explanation}") from error
        self.pid = self._engine.inspect_container(self.id)["State"]["Pid"]
        with self._supervisor.changing():
            self.exit, self._frozen, self._pending = None, False, []
        threading.Thread(target=self._follow, args=(output,), name=f"onecharge-{self.name}", daemon=True).start()
        return self

    def signal(self, number: int) -> bool:
        """Send a signal to its first process. SIGSTOP, SIGCONT and SIGKILL are for all of them."""
        if self.exit is not None:
            return False
        try:
            if number == signal.SIGSTOP:
                self._pause()
            elif number == signal.SIGCONT:
                self.thaw()
            elif self._frozen and number != signal.SIGKILL:
                self._pending.append(number)
            else:
                self._engine.kill(self.id, number)
                if number == signal.SIGKILL:
                    self.thaw()  # what stands still does not die
        except docker().errors.APIError:
            return False  # it has ended meanwhile
        return True

    def freeze(self) -> list[int]:
        """See `Process`."""
        self._pause()
        return proc.family(self.pid)

    def thaw(self) -> None:
        """See `Process`."""
        if self._frozen:
            self._frozen = False
            with contextlib.suppress(docker().errors.APIError):  # it has ended
                self._engine.unpause(self.id)
            while self._pending:
                self.signal(self._pending.pop(0))

    def destroy(self) -> None:
        """See `Process`. The kernel ends all of a container's processes with its first."""
        self.signal(signal.SIGKILL)
        self.wait(Deadline(_DEATH_S))

    def forget(self) -> None:
        """Remove it, with its data."""
        with contextlib.suppress(docker().errors.NotFound):
            self._engine.remove_container(self.id, v=True, force=True)

    def _pause(self) -> None:
        self._engine.pause(self.id)
        self._frozen = True

    def _follow(self, output: Any) -> None:
        """In a thread of its own: keep what it says, and how it ended."""
        status = _BY_SIGNAL + signal.SIGKILL
        try:
            with self.log.open("ab", buffering=0) as log:
                for piece in output:
                    log.write(piece)
            status = self._engine.wait(self.id)["StatusCode"]
            if not self._kept:
                self.forget()
        except Exception as error:  # noqa: BLE001 - it was removed, or the engine has ended; who waits must not for ever
            with contextlib.suppress(OSError), self.log.open("a", encoding="utf-8") as log:
                log.write(f"onecharge: nothing more is known of this container: {error}\n")
        finally:
            _close(output)
            with self._supervisor.changing():
                self.exit = Exit(status if status <= _BY_SIGNAL else _BY_SIGNAL - status)


class Engine:
    """A Docker engine on this machine. What earlier runs have left in it is removed when it is first spoken to.

    Raises:
        MissingPart: it does not answer.
        ChaosError: it is on another machine.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._run = str(supervisor.run_dir)
        self.address = os.environ.get("DOCKER_HOST") or _DEFAULT
        if not self.address.startswith(_SCHEME):
            raise ChaosError(
                f"the Docker engine at {self.address} may be on another machine, where workers cannot reach what it "
                f"runs: have DOCKER_HOST name one of this machine by its socket, such as {_DEFAULT}"
            )
        require_client("docker", "docker")
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:  # docker-py leaves it open if that fails
                probe.connect(self.address.removeprefix(_SCHEME))
            self._client = docker().APIClient(self.address, version="auto")
        except (OSError, docker().errors.DockerException) as error:
            raise MissingPart(
                "a Docker engine that answers",
                looked_for=[f"{self.address} ({getattr(error, 'strerror', None) or error})"],
                remedy="Start it, name another in DOCKER_HOST, or do without: servers are plain processes by default.",
            ) from error
        self._sweep()
        argv = [sys.executable, "-P", str(Path(reaper.__file__).resolve()), self.address, self._run]
        supervisor.spawn("containers", argv, farewell=signal.SIGTERM)

    def require_image(self, image: str, how_to_name: str) -> None:
        """Raise `MissingPart` if the engine does not have an image. None is fetched: that may take long."""
        try:
            self._client.inspect_image(image)
        except docker().errors.NotFound as error:
            raise MissingPart(
                f"the image {image}",
                looked_for=[f"it among those of the Docker engine at {self.address}"],
                remedy=f"Fetch it with `docker pull {image}`, or name another with {how_to_name}.",
            ) from error

    def make(
        self, name: str, image: str, command: Sequence[str] | None, *, env: Mapping[str, str], kept: bool
    ) -> Container:
        """Make a container, to be begun. One that is not `kept` is removed when it ends.

        Raises:
            ChaosError: the engine refused it; with what it said.
        """
        try:
            made = self._client.create_container(
                image,
                command=None if command is None else list(command),
                environment=dict(env),
                labels={RUN: self._run, MACHINE: machine()},
                host_config=self._client.create_host_config(network_mode="host", log_config={"Type": "none"}),
            )["Id"]
        except docker().errors.APIError as error:
            raise ChaosError(f"{name} could not be made from the image {image}: {error.explanation}") from error
        container = Container(
            self._supervisor, name, self._supervisor.logs / f"{name}.log", self._client, made, kept=kept
        )
        with self._supervisor.changing():
            self._supervisor.processes.append(container)
        return container

    def close(self) -> None:
        """Remove this run's containers, with their data."""
        for made in self._found(RUN, self._run):
            self._remove(made["Id"])
        self._client.close()

    def _sweep(self) -> None:
        for made in self._found(MACHINE, machine()):
            if not Path(made["Labels"][RUN]).exists():
                self._remove(made["Id"])

    def _found(self, label: str, value: str) -> Iterator[dict[str, Any]]:
        yield from self._client.containers(all=True, filters={"label": [RUN, f"{label}={value}"]})

    def _remove(self, made: str) -> None:
        # Another run's sweep, or the engine, may be about to.
        with contextlib.suppress(docker().errors.NotFound, docker().errors.APIError):
            self._client.remove_container(made, v=True, force=True)


def _close(output: Any) -> None:
    output._response.close()  # noqa: SLF001 - its own `close` leaves the socket open


def machine() -> str:
    """Who sees the same files as this process, as this user: an engine may be shared with others who do not."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}:{Path('/proc/self/ns/mnt').readlink().name}:{os.getuid()}"
