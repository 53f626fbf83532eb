"""Which process owns a socket, and who has gone around the wire: by the kernel's tables.

This is asked at the end of each drill, about every worker, so it reads what it needs and no more: psutil, which looks
at all processes of the machine to know one's children, took longer than the drill itself.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_PROC: Final = Path("/proc")
_SOCKET: Final = "socket:["
_MAPPED: Final = "::ffff:"
_TIME_WAIT: Final = "06"
HIDDEN: Final = ""


class _Row(NamedTuple):
    """A connection: its own port, and whom it is with."""

    port: int
    host: str
    to: int
    inode: str


def family(pid: int) -> Iterator[int]:
    """A process and all that descend from it."""
    yield pid
    tasks, children = f"{_PROC}/{pid}/task/", list[bytes]()
    with contextlib.suppress(OSError):
        for task in os.listdir(tasks):  # noqa: PTH208 - a thread each, and some have many
            with contextlib.suppress(OSError), open(f"{tasks}{task}/children", "rb", buffering=0) as file:  # noqa: PTH123
                children += file.read().split()
    for child in children:
        yield from family(int(child))


def owners(pid: int, link_ports: Collection[int]) -> dict[int, int]:
    """By local port, which process, of `pid` and its descendants, has a connection to one of the links' ports.

    Looked up twice, as the kernel's lists of children and of sockets leave out some while others come and go (proc(5)).
    """
    found = dict[int, int]()
    for _ in range(2):
        rows = {row.inode: row for row in _table(pid).values() if row.to in link_ports}
        found |= {rows[inode].port: one for one in family(pid) for inode in _sockets(one) & rows.keys()}
    return found


class Watch:
    """Who has gone around the wire. What a socket is connected to it stays so, so each is looked up once."""

    def __init__(self) -> None:
        self._innocent: dict[int, set[str]] = {}  # sockets by process
        self._addresses: frozenset[tuple[str, int]] = frozenset()

    def around(self, pids: Collection[int], addresses: Collection[tuple[str, int]]) -> dict[int, set[str]]:
        """By process, the addresses to which it or a descendant of it is connected directly.

        `HIDDEN` is among them where that is not for this user to see, as of a container's processes.
        """
        if self._addresses != frozenset(addresses):
            self._addresses = frozenset(addresses)
            self._innocent.clear()
        self._innocent = {pid: known for pid, known in self._innocent.items() if pid in pids}
        tables = dict[str, dict[str, _Row]]()
        found: dict[int, set[str]] = {}
        for pid in pids:
            members = [*family(pid)]
            if any(map(_hidden, members)):
                found[pid] = {HIDDEN}
            held = {inode for one in members for inode in _sockets(one)}
            if not held - self._innocent.get(pid, set()):
                continue
            space = _namespace(pid)
            if space not in tables:
                tables[space] = _table(pid)
            rows = {inode: tables[space][inode] for inode in held & tables[space].keys()}
            met = {inode for inode, row in rows.items() if (row.host, row.to) in addresses}
            # One that is in no table is not connected yet, and is looked up again.
            self._innocent[pid] = (rows.keys() - met) | (held & _local(pid))
            if met:
                found[pid] = found.get(pid, set()) | {f"{rows[one].host}:{rows[one].to}" for one in met}
        return found


def _hidden(pid: int) -> bool:
    """Whether its sockets are not for this user to see."""
    try:
        os.scandir(f"{_PROC}/{pid}/fd").close()
    except PermissionError:
        return True
    except OSError:  # it has ended
        return False
    return False


def _namespace(pid: int) -> str:
    """The network namespace of a process, whose connections share a table."""
    with contextlib.suppress(OSError):
        return str((_PROC / str(pid) / "ns" / "net").readlink())
    return ""


def _table(pid: int) -> dict[str, _Row]:
    """The connections in the network namespace of a process, by inode, but for those that are over."""
    rows = {}
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in (_PROC / str(pid) / "net" / name).read_text(encoding="ascii").splitlines()[1:]:
                _, own, other, state, *rest = line.split(maxsplit=10)
                if state != _TIME_WAIT:  # a thousand of them may be waiting here
                    rows[rest[5]] = _Row(_address(own)[1], *_address(other), rest[5])
    return rows


def _local(pid: int) -> set[str]:
    """The inodes of all unix sockets."""
    with contextlib.suppress(OSError):
        lines = (_PROC / str(pid) / "net" / "unix").read_text(encoding="utf-8", errors="replace").splitlines()[1:]
        return {line.split(maxsplit=7)[6] for line in lines}
    return set()


def _address(text: str) -> tuple[str, int]:
    """An address as the kernel writes it: words of four bytes in the machine's order, and a port."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    packed = b"".join(struct.pack("!I", word) for (word,) in struct.iter_unpack("=I", words))
    version = socket.AF_INET if len(packed) == 4 else socket.AF_INET6  # noqa: PLR2004 - the length of an IPv4 address
    return socket.inet_ntop(version, packed).removeprefix(_MAPPED), int(port, 16)


def _sockets(pid: int) -> set[str]:
    """The inodes of the sockets that a process has open."""
    found = set[str]()
    where = f"{_PROC}/{pid}/fd/"
    with contextlib.suppress(OSError):  # it has ended, now or in between
        for entry in os.listdir(where):  # noqa: PTH208 - this and the next: by far most of the time is spent here
            with contextlib.suppress(OSError):
                name = os.readlink(where + entry)  # noqa: PTH115
                if name.startswith(_SOCKET):
                    found.add(name[len(_SOCKET) : -1])
    return found
