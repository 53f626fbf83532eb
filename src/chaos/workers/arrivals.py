"""The other end of `chaos.checkpoint`: what a worker's thread announces, and the leave it is given to go on."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Arrivals:
    """The arrivals of one thread of one worker, heard in the hub's thread, which must never wait.

    Workers name themselves ``lane/worker``; `listeners` has a function for each lane that is given the worker, the
    checkpoint and the pid of the process that arrived, and says whether it may go on. Where nobody listens, everybody
    may.
    """

    def __init__(self, connection: socket.socket, listeners: Mapping[str, Callable[[str, str, int], bool]]) -> None:
        connection.setblocking(False)  # some worker in some language may not read what it is sent
        self._connection, self._listeners = connection, listeners
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        self._pid: int = _CREDENTIALS.unpack(credentials)[0]
        self._worker = ""
        self._rest = b""

    def hear(self) -> bool:
        """Take in what has come; False when the thread is gone."""
        try:
            data = self._connection.recv(4096)
        except BlockingIOError:
            return True
        except ConnectionError:
            return False
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if not self._worker:
                self._worker = text
            elif self._may_go_on(text):
                with contextlib.suppress(OSError):  # killed by somebody else just now
                    self._connection.send(b"\n")
        return bool(data)

    def _may_go_on(self, checkpoint: str) -> bool:
        lane, _, worker = self._worker.partition("/")
        listener = self._listeners.get(lane)
        return listener is None or listener(worker, checkpoint, self._pid)
