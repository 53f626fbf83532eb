"""Which process owns a socket, and who has gone around the wire: by the kernel's table of sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator


def family(pid: int) -> Iterator[psutil.Process]:
    """A process and all that descend from it."""
    try:
        parent = psutil.Process(pid)
        yield parent
        yield from parent.children(recursive=True)
    except psutil.NoSuchProcess:
        return


def owners(pid: int, link_ports: Collection[int]) -> dict[int, int]:
    """By local port, which process, of `pid` and its descendants, has a connection to one of the links' ports."""
    return {
        one.laddr.port: int(process.pid)
        for process in family(pid)
        for one in _sockets(process)
        if one.raddr and one.raddr.port in link_ports
    }


def around(pid: int, addresses: Collection[tuple[str, int]]) -> set[str]:
    """The addresses to which `pid` or a descendant of it is connected directly."""
    return {
        f"{one.raddr.ip}:{one.raddr.port}"
        for process in family(pid)
        for one in _sockets(process)
        if one.raddr and (one.raddr.ip.removeprefix("::ffff:"), one.raddr.port) in addresses
    }


def _sockets(process: psutil.Process) -> list[Any]:
    try:
        return list(process.net_connections(kind="tcp"))
    except psutil.Error:  # it has just ended
        return []
