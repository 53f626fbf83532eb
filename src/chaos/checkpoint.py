r"""Named places in a worker's code where the harness can break it.

``checkpoint("payment.charged")`` costs a function call and one comparison while nothing is armed. When the harness
started the process (it sets ``ONECHARGE_CHECKPOINTS``, the path of a unix socket, and ``ONECHARGE_WORKER``, the
worker's name and incarnation), each arrival is announced on that socket and the calling thread waits for leave to go
on. Being killed while waiting is how a crash "at" a checkpoint is exact: nothing that follows the call has run, nothing
that precedes it is undone.

The announcement is text, so that a worker in any language can do the same in a few lines: connect, send
``<ONECHARGE_WORKER>\n`` once, then ``<checkpoint name>\n`` at each arrival, and read one ``\n`` back before going on.

This module imports nothing outside the standard library, and nothing heavy inside it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET_VARIABLE = "ONECHARGE_CHECKPOINTS"
WORKER_VARIABLE = "ONECHARGE_WORKER"

_arrive: Callable[[str], None] | None = None


def checkpoint(name: str) -> None:
    """Announce that this thread arrived at the place called `name`; return when it may go on.

    Names are dotted lower-case words by convention, ``<worker>.<what has just happened>``. Without a harness this
    does nothing.
    """
    if _arrive is not None:
        _arrive(name)


def arm() -> None:
    """Connect `checkpoint` to the harness named in the environment; without one, disconnect it.

    Runs by itself when this module is imported. The harness calls it once more in a worker that was forked from a
    parent which had imported this module already.
    """
    global _arrive  # noqa: PLW0603 - one process, one switch: a global is what keeps the unarmed call this cheap
    path, worker = os.environ.get(SOCKET_VARIABLE), os.environ.get(WORKER_VARIABLE)
    _arrive = _announcer(path, worker) if path and worker else None


def _announcer(path: str, worker: str) -> Callable[[str], None]:
    import socket  # noqa: PLC0415 - an unarmed process never pays for it
    import threading  # noqa: PLC0415

    # A connection per thread: a thread that is held at its checkpoint must not hold back the others.
    local = threading.local()

    def announce(name: str) -> None:
        if "\n" in name:
            msg = f"a checkpoint's name is one line, not {name!r}"
            raise ValueError(msg)
        connection = getattr(local, "connection", None)
        if connection is None or local.process != os.getpid():  # a fork must not share its parent's
            local.process = os.getpid()
            connection = local.connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.connect(path)
            connection.sendall(f"{worker}\n".encode())
        connection.sendall(f"{name}\n".encode())
        if not connection.recv(1):
            threading.Event().wait()  # the harness is gone, and its keeper about to end this process: go no further

    return announce


arm()
