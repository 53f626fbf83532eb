"""Ports on the loopback interface, taken without races.

Things that don't work: binding port 0, closing it and handing the number on (anybody may get it in between, and with
several test processes somebody does); lock files (other users' are out of reach, and they outlive their owner).

So a port is leased by binding an abstract unix socket named after it. The kernel allows one such name at a time, for
all users of the network namespace, and frees it when its holder dies. Leases come from below the kernel's ephemeral
range, where no client's outgoing connection and no ``bind(0)`` ever lands; a port that somebody else listens on all
the same is found by trying to bind it.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import socket
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import MissingPart, NotInTime, PortTaken
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOWEST = 15_000
_CLEARED_S = 2.0
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")


class Port:
    """A leased port number. The lease ends with `close`, with the object, or with this process."""

    def __init__(self, number: int, lease: socket.socket) -> None:
        self.number = number
        self._lease = lease

    def __str__(self) -> str:
        return str(self.number)

    @property
    def address(self) -> str:
        """``127.0.0.1:<number>``."""
        return f"127.0.0.1:{self.number}"

    def close(self) -> None:
        """End the lease."""
        self._lease.close()

    def __del__(self) -> None:
        self._lease.close()


def lease_port() -> Port:
    """A port on 127.0.0.1 that nobody listens on and no other lease names."""
    below = int(_EPHEMERAL.read_text(encoding="ascii").split()[0])
    first, last = (_LOWEST, below - 1) if below > _LOWEST + 1000 else (10_000, 32_767)
    start = first + secrets.randbelow(last - first + 1)  # two processes that look at once rarely meet
    for number in (*range(start, last + 1), *range(first, start)):
        lease = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            lease.bind(f"\0onecharge/port/{number}")
            _try(number)
        except OSError:
            lease.close()
        else:
            return Port(number, lease)
    raise MissingPart(
        "a free port", looked_for=[f"127.0.0.1:{first} to {last}"], remedy="End some of the servers on this machine."
    )


def require_free(ports: Iterable[Port], server: str) -> None:
    """Wait a moment until nobody listens where `server` is about to; a lease keeps away only those who ask for one.

    Children of a process that was killed may have its port until the kernel has taken their memory away.

    Raises:
        PortTaken: somebody does; with who it is, where that can be seen.
    """
    for port in ports:
        try:
            wait_until(f"{port.address} to be free", partial(_free, port.number), Deadline(_CLEARED_S), every=0.002)
        except NotInTime as error:
            raise PortTaken(port.address, server=server, taker=_listener(port.number)) from error


def _free(number: int) -> bool:
    try:
        _try(number)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def _try(number: int) -> None:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As servers do: connections of a predecessor in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", number))


def _listener(number: int) -> str:
    """The program and process that listen there, in words; an empty text if that is not for us to see."""
    import psutil  # noqa: PLC0415 - for this error alone, and no part of the library's own needs

    for one in psutil.net_connections("tcp"):
        if one.pid and one.status == psutil.CONN_LISTEN and one.laddr[1:] == (number,):
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return ""
