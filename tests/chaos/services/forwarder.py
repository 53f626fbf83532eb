"""The smallest proxy: stands at one port, or unix socket, forwards to another, and counts."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class Forwarder:
    """Forwards everything until it is left; then its connections are cut and nobody is there any more.

    A number is a port, a text the path of a unix socket. What a client sends is sent on after `delay` seconds.
    """

    def __init__(self, listens: int | str, forwards_to: int | str) -> None:
        self.bytes = 0
        self.delay = 0.0
        self._to = forwards_to
        self._server = _server(listens)
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for end in (self._server, *self._ends):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in (self._server, *self._ends):
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = _connected(self._to)
                self._ends += (client, server)
                for source, sink in ((client, server), (server, client)):
                    self._threads.append(threading.Thread(target=self._copy, args=(source, sink, sink is server)))
                    self._threads[-1].start()

    def _copy(self, source: socket.socket, sink: socket.socket, is_slow: bool) -> None:  # noqa: FBT001 - by this class
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                self.bytes += len(data)
                time.sleep(self.delay if is_slow else 0)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


def _server(address: int | str) -> socket.socket:
    if isinstance(address, int):
        return socket.create_server(("127.0.0.1", address))
    return socket.create_server(address, family=socket.AF_UNIX)


def _connected(address: int | str) -> socket.socket:
    if isinstance(address, int):
        return socket.create_connection(("127.0.0.1", address))
    end = socket.socket(socket.AF_UNIX)
    end.connect(address)
    return end
