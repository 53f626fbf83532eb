"""A TCP server that answers a question, and otherwise hands its side of each connection to the test."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self

QUESTION, ANSWER = b"?", b"!"
WITHIN_S = 5.0


class PlainServer:
    """Listens on 127.0.0.1. Who sends a `QUESTION` first is answered; `accepted` is everybody."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self.address = f"127.0.0.1:{self.port}"
        self.accepted: queue.SimpleQueue[socket.socket] = queue.SimpleQueue()
        self._threads = [threading.Thread(target=self._accept)]
        self._theirs: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self._listening, *self._theirs):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for one in (self._listening, *self._theirs):
            one.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = self._listening.accept()[0]
                connection.settimeout(WITHIN_S)
                self._theirs.append(connection)
                self.accepted.put(connection)
                thread = threading.Thread(target=self._answer, args=(connection,))
                thread.start()
                self._threads.append(thread)

    def _answer(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            broken = any(event & select.POLLERR for _, event in poll.poll(WITHIN_S * 1000))
            if not broken and connection.recv(1, socket.MSG_PEEK) == QUESTION:  # else the test has the error to read
                connection.sendall(ANSWER)
                connection.shutdown(socket.SHUT_RDWR)
