"""A link: the address at which the wire stands for one worker, and the server behind it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.wire.http import Http
from chaos.wire.postgres import Postgres
from chaos.wire.recorder import Recorder

if TYPE_CHECKING:
    from chaos.wire.messages import OpenLink
    from chaos.wire.proxy import Proxy
    from chaos.wire.steps import WireProtocol


class Link:
    """A listening address of one worker, and the server behind it."""

    def __init__(self, proxy: Proxy, told: OpenLink) -> None:
        self.worker, self.protocol, self.host, self.port = told.worker, told.protocol, told.host, told.port
        self.listens = told.listens
        self.connections = 0
        self.detour = 0  # the port to forward to instead of the server's
        self.traffic = [0, 0, 0, 0]  # see `chaos.wire.detour.Traffic`
        self.bad = 0  # toxics that stand there
        self.recorder = Recorder(Path(told.record), told.key) if told.record else None
        self._proxy = proxy
        self._socket = socket.create_server(("127.0.0.1", told.listens), backlog=1024)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self.accept)

    def make(self) -> WireProtocol:
        """A protocol for one connection."""
        if self.protocol == "postgres":
            return Postgres()
        return Http() if self.protocol == "http" else self._proxy.kafka(self.worker)

    @property
    def dials(self) -> tuple[str, int]:
        """Where to connect to: the server, or what stands before it."""
        return ("127.0.0.1", self.detour) if self.detour else (self.host, self.port)

    def accept(self) -> None:
        """Take in everybody who has connected."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                accepted, (_, port) = self._socket.accept()
                accepted.setblocking(False)
                self._proxy.accepted(self, accepted, port)
