"""Rooms: small file systems for the data of servers of our own, which can be filled up and emptied again.

A room is a tmpfs that is mounted in a mount namespace of its own. Only processes that are started in it see it, beside
all that others see, and it is gone when the last of them is: there is nothing to be unmounted, whoever was killed. To
make one takes the right to mount, which root has.
"""

from __future__ import annotations

import errno
import functools
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

from chaos.errors import ChaosError
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.workers.process import Process
    from chaos.workers.supervisor import Supervisor

_READY_S: Final = 5.0
_MOUNT: Final = 'mkdir -p "$1" && mount -t tmpfs -o "size=$2m,mode=0711" onecharge "$1" && exec sleep infinity'


class Room:
    """A file system of so many `megabytes`, at `place` for who is started in it.

    Raises:
        ChaosError: it may not be made; with what the system said.
    """

    def __init__(self, supervisor: Supervisor, place: Path, megabytes: int) -> None:
        self.place = place
        name = f"{place.name}-room"
        mount = ["sh", "-c", _MOUNT, "sh", str(place), str(megabytes)]
        self._holder = supervisor.spawn(name, ["unshare", "--mount", "--propagation", "private", *mount])
        wait_until(f"{name} to be there", self._there, Deadline(_READY_S), logs=[self._holder.log])

    def seen(self, path: Path) -> Path:
        """How a file in it is named by who is not started in it."""
        return Path(f"/proc/{self._holder.pid}/root{path}")

    def _entered(self, argv: Sequence[str], user: tuple[int, int] | None, farewell: int) -> list[str]:
        """The command line that runs another in it, as (uid, gid) `user`, with this signal when its parent dies."""
        become = ["setpriv", "--pdeathsig", signal.Signals(farewell).name.removeprefix("SIG")]
        if user is not None:
            become += ["--reuid", str(user[0]), "--regid", str(user[1]), "--clear-groups"]
        return ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", *become, *argv]

    def fill(self) -> None:
        """Leave nothing of it, not a byte."""
        with self._ballast.open("ab", buffering=0) as ballast:
            while _written(ballast.fileno(), bytes(1 << 20)):
                pass

    def empty(self) -> bool:
        """Give back what was taken; whether anything was."""
        was_full = self._ballast.exists()
        self._ballast.unlink(missing_ok=True)
        return was_full

    def end(self) -> None:
        """Have it gone as soon as no server runs in it."""
        if self._holder.exit is None:
            self._holder.kill()

    @property
    def _ballast(self) -> Path:
        return self.seen(self.place / "ballast")

    def _there(self) -> bool:
        if self._holder.exit is not None:
            said = self._holder.log.read_text(encoding="utf-8", errors="replace").strip().replace("\n", "; ")
            raise ChaosError(
                f"a server's own small file system could not be made, which takes the right to mount: {said}"
            )
        inside = self.seen(self.place)
        return inside.is_dir() and inside.is_mount()


def spawner(
    supervisor: Supervisor,
    room: Room | None,
    name: str,
    argv: Sequence[str],
    *,
    env: dict[str, str],
    user: tuple[int, int] | None = None,
    farewell: int = signal.SIGKILL,
) -> Callable[[], Process]:
    """What starts a program, as `Supervisor.spawn` would, in a room if there is one."""
    if room is not None:
        argv, user = room._entered(argv, user, farewell), None  # noqa: SLF001 - its other half
    return functools.partial(supervisor.spawn, name, argv, env=env, user=user, farewell=farewell)


def _written(file: int, piece: bytes) -> bool:
    """Whether all of it found room; if not, as much as there was room for was written."""
    try:
        return os.write(file, piece) == len(piece)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False
