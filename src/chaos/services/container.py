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

from chaos.errors import ChaosError, MissingPart, ServerGone
from chaos.services import reaper
from chaos.services.clients import docker, require_client
from chaos.waiting import Deadline
from chaos.workers import proc
from chaos.workers.process import ANSWER_S, Exit, Process

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from chaos.workers.supervisor import Supervisor

RUN, MACHINE = "onecharge.run", "onecharge.machine"
_DEATH_S = 10.0
_REAPED_S = 8.0
_BY_SIGNAL = 128  # an exit code above it says which signal it was
_SIGNALS = 64
_SCHEME = "unix://"
_DEFAULT = f"{_SCHEME}/var/run/docker.sock"


class Refused(ChaosError):
    """The engine has answered that it will not; `gone` if there is no such container or image."""

    def __init__(self, said: str, *, gone: bool) -> None:
        self.gone = gone
        super().__init__(said)


class Api:
    """The engine's own client: each call has a time-out, and its errors are ours."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._client = docker().APIClient(address, version="auto", timeout=ANSWER_S)

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """Call a method of `docker.APIClient`.

        Raises:
            Refused: the engine has said so.
            ServerGone: it does not answer.
        """
        try:
            return getattr(self._client, name)(*arguments, **options)
        except docker().errors.APIError as error:
            raise Refused(str(error.explanation), gone=isinstance(error, docker().errors.NotFound)) from error
        except OSError as error:  # whatever else goes wrong on the way to it, for its library too
            remedy = "What of it was broken is not known; look at the engine's own log."
            raise ServerGone("the Docker engine", self.address, why=str(error), remedy=remedy) from error

    def remove(self, made: str) -> None:
        """Remove a container with its data, if it is there and nobody else is about to."""
        with contextlib.suppress(Refused):
            self.call("remove_container", made, v=True, force=True)

    def close(self) -> None:
        """Hang up."""
        self._client.close()


class Container(Process):
    """A container that was made, and runs from `begin` on. `pid` is its first process'."""

    def __init__(self, supervisor: Supervisor, name: str, log: Path, api: Api, made: str, *, kept: bool) -> None:
        super().__init__(supervisor, name, log)
        self.id = made
        self._api, self._kept = api, kept
        self._lock = threading.RLock()  # of what follows
        self._frozen = self._killed = False
        self._pending: list[int] = []  # signals for when it goes on: the engine would have it go on at once

    def begin(self) -> Container:
        """Start it, for the first time or on the data that it has.

        Raises:
            ChaosError: the engine refused it, with what it said; the container is gone.
            ServerGone: the engine does not answer.
        """
        output = self._api.call("attach", self.id, stream=True)  # before it starts, so that nothing of it is missed
        try:
            self._api.call("start", self.id)
            self.pid = self._api.call("inspect_container", self.id)["State"]["Pid"]
        except ChaosError as error:
            _close(output)
            self._api.remove(self.id)
            raise ChaosError(f"{self.name} could not be started: {error}") from error
        self._frozen, self._killed, self._pending = False, False, []
        with self._supervisor.changing():
            self.exit = None
            if self not in self._supervisor.processes:
                self._supervisor.processes.append(self)
        threading.Thread(target=self._follow, args=(output,), name=f"onecharge-{self.name}", daemon=True).start()
        return self

    def signal(self, number: int) -> bool:
        """Send a signal to its first process. SIGSTOP, SIGCONT and SIGKILL are for all of them."""
        with self._lock:
            if self.exit is not None:
                return False
            try:
                if number == signal.SIGSTOP:
                    self._pause()
                elif number == signal.SIGCONT:
                    self.thaw()
                elif number == signal.SIGKILL:
                    self._killed = True
                    self._api.call("kill", self.id, number)
                    self._frozen = False  # the engine has it go on, to die
                elif self._frozen:
                    self._pending.append(number)
                else:
                    self._api.call("kill", self.id, number)
            except Refused:
                return False  # it has ended meanwhile
            return True

    def freeze(self) -> list[int]:
        """See `Process`."""
        with self._lock:
            self._pause()
        return proc.family(self.pid)

    def thaw(self) -> None:
        """See `Process`."""
        with self._lock:
            if not self._frozen:
                return
            try:
                self._api.call("unpause", self.id)
            except Refused:
                if self._paused():
                    raise
            self._frozen = False
            while self._pending:
                self.signal(self._pending.pop(0))

    def destroy(self) -> None:
        """See `Process`. The kernel ends all of a container's processes with its first."""
        self.signal(signal.SIGKILL)
        self.wait(Deadline(_DEATH_S))

    def forget(self) -> None:
        """Remove it, with its data."""
        self._api.remove(self.id)

    def _pause(self) -> None:
        if not self._frozen:
            self._api.call("pause", self.id)
            self._frozen = True

    def _paused(self) -> bool:
        try:
            return bool(self._api.call("inspect_container", self.id)["State"]["Paused"])
        except Refused:  # it is gone
            return False

    def _follow(self, output: Any) -> None:
        """In a thread of its own: keep what it says, and how it ended."""
        try:
            with self.log.open("ab", buffering=0) as log:
                for piece in output:
                    log.write(piece)
        except Exception:  # noqa: BLE001, S110 - the engine has ended, or there is no room; how it ended is asked all the same
            pass
        finally:
            _close(output)
        ended = self._ended()
        with self._supervisor.changing():
            self.exit = ended
        if not self._kept:
            with contextlib.suppress(ServerGone):
                self.forget()

    def _ended(self) -> Exit:
        try:
            status = self._api.call("wait", self.id, timeout=None)["StatusCode"]
        except (Refused, ServerGone) as error:
            if not getattr(error, "gone", False):
                return Exit(_BY_SIGNAL - 1, lost=str(error))
            status = _BY_SIGNAL + signal.SIGKILL  # it was removed
        number = status - _BY_SIGNAL
        by_signal = 0 < number <= _SIGNALS and (number != signal.SIGKILL or self._killed)
        return Exit(-number if by_signal else status)


class Engine:
    """A Docker engine on this machine. What earlier runs have left in it is removed when it is first spoken to.

    Raises:
        MissingPart: it does not answer.
        ChaosError: it has another network than this process.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        require_client("docker", "docker")
        self._supervisor = supervisor
        self._run = str(supervisor.run_dir)
        self.address = os.environ.get("DOCKER_HOST") or _DEFAULT
        if not self.address.startswith(_SCHEME):
            raise self._elsewhere("it may be on another machine")
        try:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as probe:  # docker-py leaves it open if that fails
                probe.connect(self.address.removeprefix(_SCHEME))
            self._api = Api(self.address)
        except (OSError, docker().errors.DockerException) as error:
            raise MissingPart(
                "a Docker engine that answers",
                looked_for=[f"{self.address} ({getattr(error, 'strerror', None) or error})"],
                remedy="Start it, name another in DOCKER_HOST, or do without: servers are plain processes by default.",
            ) from error
        told = self._api.call("info")
        if "name=rootless" in told["SecurityOptions"] or told["OperatingSystem"] == "Docker Desktop":
            self._api.close()
            raise self._elsewhere("it runs rootless, or in a machine of its own")
        self._sweep()
        argv = [sys.executable, "-P", str(Path(reaper.__file__).resolve()), self.address, self._run]
        supervisor.spawn("containers", argv, farewell=signal.SIGTERM, patience=_REAPED_S)

    def _elsewhere(self, why: str) -> ChaosError:
        return ChaosError(
            f"the Docker engine at {self.address} has another network than this process, as {why}: what it runs could "
            f"not be reached. Have DOCKER_HOST name one of this machine by its socket, such as {_DEFAULT}"
        )

    def require_image(self, image: str, how_to_name: str) -> None:
        """Raise `MissingPart` if the engine does not have an image. None is fetched: that may take long."""
        try:
            self._api.call("inspect_image", image)
        except Refused as error:
            if not error.gone:
                raise
            raise MissingPart(
                f"the image {image}",
                looked_for=[f"it among those of the Docker engine at {self.address}"],
                remedy=f"Fetch it with `docker pull {image}`, or name another with {how_to_name}.",
            ) from error

    def make(
        self, name: str, image: str, command: Sequence[str] | None, *, env: Mapping[str, str], kept: bool
    ) -> Container:
        """Make a container, to be begun. One that is not `kept` is a worker's: it is removed when it ends.

        Raises:
            ChaosError: the engine refused it; with what it said.
            ServerGone: it does not answer.
        """
        try:
            made = self._api.call(
                "create_container",
                image,
                command=None if command is None else list(command),
                environment=dict(env),
                labels={RUN: self._run, MACHINE: machine()},
                host_config={
                    "NetworkMode": "host",
                    "LogConfig": {"Type": "none"},
                    "Init": not kept,  # a program that is the first process is not ended by SIGTERM as others are
                },
                # A worker of a user who is not root is that user: the sockets of others are not for them to see.
                user=f"{os.getuid()}:{os.getgid()}" if os.getuid() and not kept else None,
                use_config_proxy=False,
            )["Id"]
        except Refused as error:
            raise ChaosError(f"{name} could not be made from the image {image}: {error}") from error
        return Container(self._supervisor, name, self._supervisor.logs / f"{name}.log", self._api, made, kept=kept)

    def close(self) -> None:
        """Remove this run's containers, with their data."""
        with contextlib.suppress(ServerGone):  # what is left of them the next run removes
            for made in self._found(RUN, self._run):
                self._api.remove(made["Id"])
        self._api.close()

    def _sweep(self) -> None:
        for made in self._found(MACHINE, machine()):
            if not Path(made["Labels"][RUN]).exists():
                self._api.remove(made["Id"])

    def _found(self, label: str, value: str) -> Iterator[dict[str, Any]]:
        yield from self._api.call("containers", all=True, filters={"label": [RUN, f"{label}={value}"]})


def _close(output: Any) -> None:
    output._response.close()  # noqa: SLF001 - its own `close` leaves the socket open


def machine() -> str:
    """Who sees the same files as this process, as this user: an engine may be shared with others who do not."""
    named = Path("/etc/machine-id")
    if not (named.is_file() and named.stat().st_size):
        named = Path("/proc/sys/kernel/random/boot_id")  # then what a power loss has left is not known again
    told = named.read_text(encoding="ascii").strip()
    return f"{told}:{Path('/proc/self/ns/mnt').readlink().name}:{os.getuid()}"
