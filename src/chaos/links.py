"""The links of a lane: for each worker and server an address of its own, at which the lane's wire stands.

A worker is told the link's address where it would have been told the server's: in ``DATABASE_URL`` and
``KAFKA_BOOTSTRAP_SERVERS``, for ``{postgres}`` and ``{kafka}``, and wherever the URL of a trusted HTTP service occurs.

What has no link, because the wire cannot stand there: a Kafka that somebody else runs (it tells clients its own
addresses), and a Postgres at a unix socket or at several hosts. `Links.unwired` says so.
"""

from __future__ import annotations

import contextlib
import functools
import re
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from chaos.errors import ChaosError
from chaos.services.detours import Detour, Detours
from chaos.services.kafka import SPARE_LISTENERS
from chaos.services.ports import Port, lease_port
from chaos.wire.messages import Bury, Cut, Enlist, Look, OpenLink, Reroute, Started

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable
    from pathlib import Path

    from chaos.services.kafka import Kafka, SpareListener
    from chaos.services.toxiproxy import Toxiproxy
    from chaos.toxics import Toxic
    from chaos.wire.client import Wire
    from chaos.workers.supervisor import Supervisor

_HTTP_ADDRESS = re.compile(r"https?://([^/?#]+)")


@dataclass(frozen=True)
class _Service:
    """An HTTP service that workers use, and the file that records it, if one does."""

    address: str
    record: str = ""
    key: str = ""
    name: str = ""


@dataclass(frozen=True)
class Link:
    """A link that was opened: of which worker, to what server, at which port of ours."""

    label: str
    protocol: str
    service: str  # the name of a trusted worker, else the protocol
    upstream: str
    listens: int

    @property
    def name(self) -> str:
        """``payment.0-kafka``."""
        return f"{self.label}-{self.service}"

    def called(self, name: str) -> bool:
        """Whether a schedule's ``payment-kafka`` means it, for one, or ``kafka``, which is everybody's."""
        return name in self.calls

    @property
    def calls(self) -> set[str]:
        """What a schedule may call it."""
        role, services = self.label.rpartition(".")[0], {self.service, self.protocol}
        return services | {f"{role}-{service}" for service in services}


class Links:
    """See the module's docstring. The wire process is started when the first link is needed."""

    def __init__(
        self,
        supervisor: Supervisor,
        name: str,
        *,
        postgres: str,
        kafka: Kafka | None,
        toxiproxy: Callable[[], Toxiproxy],
    ) -> None:
        self.unwired: dict[str, str] = {}
        self._supervisor, self._name = supervisor, name
        self._postgres, self._kafka = postgres, kafka
        self._services: dict[str, _Service] = {}
        self._addresses: dict[tuple[str, str], str] = {}
        self._open_links: dict[int, Link] = {}
        self._detours, self._ways = Detours(toxiproxy), dict[int, Detour]()
        self._ports: list[Port] = []
        self._listeners: list[SpareListener] = []
        self._stack = contextlib.ExitStack()

    @functools.cached_property
    def wire(self) -> Wire:
        """The lane's wire process."""
        from chaos.wire.client import Wire  # noqa: PLC0415 - whoever starts no worker needs none of it

        return self._stack.enter_context(Wire(self._supervisor, self._name))

    def close(self) -> None:
        """End the wire, and give back what the links stood at."""
        try:
            self._stack.close()
        finally:
            self._detours.end()
            for port in self._ports:
                port.close()
            if self._kafka is not None:
                self._kafka.spare.extend(self._listeners)

    def add_service(self, url: str, record: Path | None = None, key: str = "", *, name: str = "") -> None:
        """Give every worker a link of its own to the HTTP service at `url`, wherever it is told that."""
        written = _http_address(url)
        address = written if ":" in written else f"{written}:80"
        self._services[written] = _Service(address, str(record or ""), key, name)

    def stands_before(self, url: str) -> bool:
        """Whether some worker has a link to the HTTP service at `url`."""
        upstream = self._services[_http_address(url)].address
        return any(kind == f"http{upstream}" for _, kind in self._addresses)

    def enlist(self, label: str, role: str, generation: int, *, life: int = 0, whole_group: bool = True) -> None:
        """What connects through the links of `label` from here on is a new incarnation of it."""
        self.wire.do(lambda number: Enlist(number, label, role, generation, life, whole_group))

    def started(self, label: str, pid: int) -> None:
        """The process of the present incarnation of `label`."""
        self.wire.do(lambda number: Started(number, label, pid))

    def cut(self, label: str) -> None:
        """Let nothing more of `label` through."""
        self.wire.do(lambda number: Cut(number, label))

    def bury(self, label: str) -> tuple[str, ...]:
        """`label`, which was cut, is dead: end what it had open. What of it had been delivered without a reply."""
        return self.wire.do(lambda number: Bury(number, label))

    def unseen(self) -> tuple[str, ...]:
        """Who is connected to a server directly, or in a way that the wire does not understand, in words."""
        real = [self._kafka.bootstrap] if self._kafka is not None and "kafka" not in self.unwired else []
        real += [_postgres_address(self._postgres)] if self._postgres and "postgres" not in self.unwired else []
        addresses = tuple(
            numeric
            for address in (*real, *(one.address for one in self._services.values()))
            for numeric in _numeric(address)
        )
        return self.wire.do(lambda number: Look(number, addresses))

    def named(self, name: str) -> list[Link]:
        """The links that a schedule calls ``payment-kafka``, one a replica, or ``kafka``; none if there is none."""
        return [link for link in self._of_workers if link.called(name)]

    @property
    def names(self) -> set[str]:
        """What a schedule may call a link."""
        return {name for link in self._of_workers for name in link.calls}

    @property
    def _of_workers(self) -> list[Link]:
        """All but those of trusted workers, which are never made bad."""
        trusted = {f"{service.name}.0" for service in self._services.values()}
        return [link for link in self._open_links.values() if link.label not in trusted]

    def misled(self, wanted: Collection[int]) -> list[Link]:
        """The links that have no detour and are `wanted` to, or have one and need none."""
        return [link for port, link in self._open_links.items() if (port in wanted) != (port in self._ways)]

    def reroute(self, links: Iterable[Link]) -> None:
        """Give links a detour that have none, and take it from the others. Nobody must be connected there.

        Raises:
            NotInTime: a service does not answer by way of its detour.
            ServerGone: Toxiproxy does not.
        """
        for link in links:
            way = self._ways.pop(link.listens, None)
            if way is not None:
                self._forward(link, 0)
                self._detours.close(way)
                continue
            way = self._ways[link.listens] = self._detours.open(link.name, link.upstream, link.protocol)
            self._forward(link, way.listens.number)

    def _forward(self, link: Link, by: int) -> None:
        self.wire.do(lambda number: Reroute(number, link.listens, by))

    def heal_all(self) -> None:
        """Have every detour there is be whole. See `chaos.services.detours.Detours.heal_all`."""
        self._detours.heal_all()

    def spoil(self, ports: Iterable[int], toxic: Toxic) -> tuple[str, ...]:
        """Make links bad; their names. See `chaos.services.detours.Detours.spoil`.

        Raises:
            ChaosError: one takes no detour.
        """
        straight = [self._open_links[port].name for port in ports if port not in self._ways]
        if straight:
            raise ChaosError(f"{', '.join(straight)} takes no detour: a schedule has to name it")
        ways = [self._ways[port] for port in ports]
        self._detours.spoil(ways, toxic)
        return tuple(way.name for way in ways)

    def heal(self, ports: Iterable[int]) -> tuple[str, ...]:
        """Make them whole; their names. See `chaos.services.detours.Detours.heal`."""
        ways = [self._ways[port] for port in ports if port in self._ways]
        self._detours.heal(ways)
        return tuple(way.name for way in ways)

    def postgres(self, label: str) -> str:
        """The URL of the lane's database for one worker."""
        if not self._postgres:
            return ""
        try:
            address = _postgres_address(self._postgres)
        except ValueError:
            self.unwired["postgres"] = f"{self._postgres} is no single TCP address, so the wire cannot stand before it"
            return self._postgres
        return self._postgres.replace(address, self._address(label, "postgres", address), 1)

    def kafka(self, label: str) -> str:
        """The bootstrap address for one worker."""
        if self._kafka is None:
            return ""
        if self._kafka.process is None:
            self.unwired["kafka"] = f"the Kafka at {self._kafka.bootstrap} is not ours: it sends clients to itself"
            return self._kafka.bootstrap
        return self._address(label, "kafka", "")

    def translate(self, label: str, text: str) -> str:
        """`text` with links in place of the services' addresses."""
        for written, service in self._services.items():
            if written in text:
                there = rf"(?<=//){re.escape(written)}(?![\w.:-])|(?<![\w/.-]){re.escape(service.address)}(?!\d)"
                text = re.sub(there, self._address(label, "http", service.address), text)
        return text

    def _address(self, label: str, protocol: str, upstream: str) -> str:
        made = self._addresses.get((label, protocol + upstream))
        if made is None:
            made = self._addresses[label, protocol + upstream] = self._open(label, protocol, upstream)
        return made

    def _open(self, label: str, protocol: str, upstream: str) -> str:
        if protocol == "kafka":
            listener = self._spare_listener(label)
            listens, upstream = listener.advertised, listener.listens.address
        else:
            listens = lease_port()
            self._ports.append(listens)
        host, _, port = upstream.rpartition(":")
        known = [one for one in self._services.values() if one.address == upstream]
        service = known[-1] if known else _Service(upstream)
        at = listens.number
        self._open_links[at] = Link(label, protocol, service.name or protocol, upstream, at)
        self.wire.do(lambda number: OpenLink(number, label, protocol, at, host, int(port), service.record, service.key))
        return listens.address

    def _spare_listener(self, label: str) -> SpareListener:
        assert self._kafka is not None  # noqa: S101 - for the type checker; who asks has one
        try:
            self._listeners.append(self._kafka.spare.pop(0))
        except IndexError:
            msg = (
                f"no link to Kafka is left for {label}: our broker has {SPARE_LISTENERS} spare listeners, and each "
                "replica of each worker of all lanes that are open needs one. Close lanes that are not used any more."
            )
            raise ChaosError(msg) from None
        return self._listeners[-1]


def _numeric(address: str) -> set[str]:
    """``host:port`` as the kernel's table of sockets has it; as it is if the name is not known."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError):
        return {f"{found[4][0]}:{port}" for found in socket.getaddrinfo(host.strip("[]"), port)}
    return {address}


def _http_address(url: str) -> str:
    match = _HTTP_ADDRESS.match(url)
    if match is None:
        msg = f"{url!r} is no URL of an HTTP service: expected http://host:port"
        raise ChaosError(msg)
    return match[1]


def _postgres_address(url: str) -> str:
    """``host:port`` of a database's URL, as it is written there.

    Raises:
        ValueError: there is not exactly one.
    """
    parts = urlsplit(url)
    address = parts.netloc.rpartition("@")[2]
    if "," in address or "%" in address or not parts.hostname or parts.port is None:
        raise ValueError(address)
    return address
