"""Detours: links of one lane that go through Toxiproxy, so that they can be made bad and healed.

A `Detour` is a proxy of its own at a port of its own. All of a lane share one process, which is started with the first.

Toxiproxy's control interface is known to hang, most of all when a toxic is taken away, and a removal may drop what it
cannot write in time. So nothing is ever removed: a detour is healed by a fresh proxy at the same port, which ends the
connections through the old one, and it is healed when a round trip through it has said so. A process that does not
answer is replaced by another, at the same ports.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from chaos.errors import ChaosError, ServerGone
from chaos.services.ports import Port, lease_port
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chaos.services.toxiproxy import Toxiproxy
    from chaos.toxics import Toxic

_HEAL_S: Final = 3.0
_ANSWER_S: Final = 1.0

QUESTIONS: Final = {
    "postgres": bytes.fromhex("00000008 04d2162f"),  # SSLRequest
    "kafka": bytes.fromhex("00000013 0012 0000 00000000 0009") + b"onecharge",  # ApiVersions
    "http": b"HEAD / HTTP/1.1\r\nHost: onecharge\r\nConnection: close\r\n\r\n",
}
"""What a service answers to anybody, and what changes nothing there."""


def answers(address: str, protocol: str) -> bool:
    """Whether who listens there answers such a question.

    Raises:
        OSError: nobody listens, or no answer came in a second.
    """
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=_ANSWER_S) as connection:
        connection.sendall(QUESTIONS[protocol])
        return bool(connection.recv(1))


@dataclass(eq=False)
class Detour:
    """A way through Toxiproxy: connect to `listens` to reach `upstream`, which speaks `protocol`."""

    name: str
    listens: Port
    upstream: str
    protocol: str
    toxic: Toxic | None = None


class Detours:
    """See the module's docstring. `start` starts a Toxiproxy. Calls may come from any thread, and take turns."""

    def __init__(self, start: Callable[[], Toxiproxy]) -> None:
        self._start = start
        self._server: Toxiproxy | None = None
        self._there: dict[str, Detour] = {}
        self._lock = threading.RLock()

    @property
    def server(self) -> Toxiproxy:
        """The process that all share, started when it is first needed, and anew when it has ended by itself."""
        with self._lock:
            if self._server is None or (self._server.process is not None and self._server.process.exit is not None):
                self._replace()
            assert self._server is not None  # noqa: S101 - for the type checker
            return self._server

    def open(self, name: str, upstream: str, protocol: str) -> Detour:
        """A way to `upstream`, which is there and answers when this returns.

        Raises:
            NotInTime: the service does not answer through it.
            ServerGone: Toxiproxy does not answer.
        """
        with self._lock:
            server, detour = self.server, Detour(name, lease_port(), upstream, protocol)
            try:
                self._make(server, detour)
                self._verify(server, detour)
            except BaseException:
                with contextlib.suppress(ChaosError):  # it would be in the way of another of that name
                    self._drop(server, detour)
                detour.listens.close()
                raise
            self._there[name] = detour
            return detour

    def close(self, detour: Detour) -> None:
        """Take the way away; its connections end."""
        with self._lock:
            del self._there[detour.name]
            try:
                self._drop(self.server, detour)
            except ServerGone:
                self._replace()
            detour.listens.close()

    def spoil(self, detours: Iterable[Detour], toxic: Toxic) -> None:
        """Make ways bad; they are when this returns.

        Raises:
            ServerGone: Toxiproxy does not answer. All are whole then, and their connections have ended.
            ChaosError: it does not have what it was told.
        """
        with self._lock:
            for detour in detours:
                server = self._alive()
                detour.toxic = toxic
                try:
                    self._poison(server, detour)
                    self._require_poisoned(server, detour, toxic)
                except OSError as error:
                    gone = server.gone(error)
                    for one in self._there.values():
                        one.toxic = None
                    self._replace()
                    raise gone from error

    def heal(self, detours: Iterable[Detour]) -> None:
        """Make ways whole, and return when each has carried a question to its service and the answer back.

        Raises:
            NotInTime: none came by one of them; with what was seen last. The others are whole.
            ServerGone: Toxiproxy has ended by itself.
        """
        with self._lock:
            ways = list(detours)
            for detour in ways:
                detour.toxic = None
            for detour in ways:
                server = self._alive()
                try:
                    self._drop(server, detour)
                    self._make(server, detour)
                except ServerGone:
                    self._replace()
            for detour in ways:
                self._verify(self._alive(), detour)

    def heal_all(self) -> None:
        """Make those whole that were left bad, whatever has become of the process that all share. As `heal`."""
        with self._lock:
            if self._there:
                self.server  # noqa: B018 - started anew if it has ended
                self.heal([detour for detour in self._there.values() if detour.toxic is not None])

    def end(self) -> None:
        """End the process, and the leases of all ports."""
        with self._lock:
            self._end()
            for detour in self._there.values():
                detour.listens.close()
            self._there.clear()

    def _alive(self) -> Toxiproxy:
        """The process, which must not have ended.

        Raises:
            ServerGone: it has.
        """
        server = self._server
        if server is None:
            return self.server
        if server.process is not None and server.process.exit is not None:
            raise server.gone(ConnectionRefusedError())
        return server

    def _replace(self) -> None:
        """Another process in place of the one that there is, with the same ways, each as bad as it is."""
        self._end()
        self._server = server = self._start()
        for detour in self._there.values():
            self._make(server, detour)

    def _end(self) -> None:
        if self._server is not None and self._server.process is not None:
            if self._server.process.exit is None:
                self._server.process.kill()
            self._server.release()
        self._server = None

    def _make(self, server: Toxiproxy, detour: Detour) -> None:
        """A proxy with its toxic in it, and only then somebody who listens."""
        ready = detour.toxic is None
        body = {"name": detour.name, "listen": detour.listens.address, "upstream": detour.upstream, "enabled": ready}
        try:
            server.call("POST", "/proxies", body)
            if detour.toxic is not None and detour.toxic.told:
                self._poison(server, detour)
                server.call("PATCH", f"/proxies/{detour.name}", {"enabled": True})
        except OSError as error:
            raise server.gone(error) from error

    def _poison(self, server: Toxiproxy, detour: Detour) -> None:
        told = detour.toxic.told if detour.toxic is not None else []
        for one in told:
            server.call("POST", f"/proxies/{detour.name}/toxics", one)
        if not told:
            server.call("PATCH", f"/proxies/{detour.name}", {"enabled": False})

    def _require_poisoned(self, server: Toxiproxy, detour: Detour, toxic: Toxic) -> None:
        said = server.call("GET", f"/proxies/{detour.name}")
        if said["enabled"] != bool(toxic.told) or len(said["toxics"]) != len(toxic.told):
            raise ChaosError(f"{detour.name} was to have {toxic.told or 'nobody who listens'}; Toxiproxy has {said}")

    def _drop(self, server: Toxiproxy, detour: Detour) -> None:
        try:
            server.call("DELETE", f"/proxies/{detour.name}")
        except OSError as error:
            raise server.gone(error) from error

    def _verify(self, server: Toxiproxy, detour: Detour) -> None:
        def whole() -> bool:
            said = server.call("GET", f"/proxies/{detour.name}")
            return said["enabled"] and not said["toxics"] and answers(detour.listens.address, detour.protocol)

        logs = [server.process.log] if server.process is not None else []
        what = f"{detour.upstream} to answer by way of {detour.name}, which was healed"
        wait_until(what, whole, Deadline(_HEAL_S), retry_on=(OSError,), logs=logs)
