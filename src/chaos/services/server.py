"""A server of our own: it is killed, frozen, or ended in order, and comes back.

It comes back at the same ports, on the same data, whether it runs as plain processes or in a container: what differs
between these is `chaos.workers.process.Process`'s. All of its processes are killed together, and one that is frozen
stands still with all of them.
"""

from __future__ import annotations

import abc
import contextlib
import shutil
import signal
from typing import TYPE_CHECKING, ClassVar

from chaos.errors import ChaosError, NotInTime, ProcessDied
from chaos.services.ports import require_free
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.services.ports import Port
    from chaos.services.room import Room
    from chaos.workers.process import Process

_FELT_S = 10.0
_HANGS_S = 3.0


class Server(abc.ABC):
    """See the module's docstring. `process` is None for a server that somebody else runs; then all of it is refused."""

    name: str
    orderly: ClassVar[int] = signal.SIGTERM  # the signal by which it ends in order
    process: Process | None
    again: Callable[[], Process] | None  # start it on the data that it has
    listens: Sequence[Port]  # where it comes back
    data: Path | None = None  # where that is, if it is ours to remove
    room: Room | None = None  # the small file system that it is in, if any

    @abc.abstractmethod
    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until it answers."""

    def kill(self) -> None:
        """SIGKILL all of its processes; none is left when this returns.

        Raises:
            ChaosError: it is somebody else's, or has ended.
            NotInTime: one is.
        """
        self._running().destroy()

    def freeze(self) -> list[int]:
        """Have all of its processes stand still; their ids, parents first.

        Raises:
            ChaosError: it is somebody else's, or has ended.
        """
        return self._running().freeze()

    def thaw(self) -> None:
        """Have them go on."""
        self._ours().thaw()

    def end(self, deadline: Deadline) -> None:
        """Have it end in order.

        Raises:
            NotInTime: it does not.
        """
        process = self._ours()
        process.signal(self.orderly)
        process.wait(deadline)

    def fill(self) -> None:
        """Leave no room in its file system, and return when it has wanted some: it may end by that.

        Raises:
            ChaosError: it has no small file system of its own.
            NotInTime: it has found what it wanted.
        """
        room, process = self.require_room(), self._running()
        before = self._refused()
        room.fill()
        deadline = Deadline(_FELT_S)
        what = f"{self.name} to want room in its full file system"

        def felt() -> bool:
            self.want_room()
            return self._refused() > before or process.exit is not None

        wait_until(what, felt, deadline, logs=[process.log])

    def empty(self) -> None:
        """Give back what `fill` has taken, if anything.

        One that neither answers then nor has ended is killed, as a service manager would: Postgres 18, whose recovery
        has found no room, now and then waits for ever for its own processes to end.
        """
        if self.room is None or not self.room.empty() or self.ended:
            return
        with contextlib.suppress(NotInTime, ProcessDied):
            self.require_reachable(Deadline(_HANGS_S))
            return
        if not self.ended:
            self.kill()

    def require_room(self) -> Room:
        """The file system of its own.

        Raises:
            ChaosError: it has none.
        """
        if self.room is None:
            raise ChaosError(f"{self.name} has no small file system of its own: make the lane with room_mb=…")
        return self.room

    def want_room(self) -> None:  # noqa: B027 - who can be given a room overrides it
        """Have it write something, which need not succeed."""

    def _refused(self) -> int:
        return self._ours().log.read_bytes().count(b"No space left on device")

    @property
    def ended(self) -> bool:
        """Whether its first process has."""
        return self._ours().exit is not None

    def start_again(self, deadline: Deadline) -> None:
        """Start it on the data that it has; it answers when this returns.

        Raises:
            PortTaken: somebody has taken one of its ports meanwhile.
            ProcessDied: it ended by itself.
            NotInTime: it does not answer.
        """
        if not self.ended:
            self.kill()
        require_free(self.listens, self.name)
        assert self.again is not None  # noqa: S101 - for the type checker: what is ours can be started
        self.process = self.again()
        self.require_reachable(deadline)

    def forget(self) -> None:
        """Remove what is left of one of our own that has ended."""
        if self.process is not None:
            self.process.forget()
        if self.data is not None:
            shutil.rmtree(self.data, ignore_errors=True)
        if self.room is not None:
            self.room.end()

    def _running(self) -> Process:
        process = self._ours()
        process.require_running()
        return process

    def _ours(self) -> Process:
        if self.process is None or self.again is None:
            raise ChaosError(f"this {self.name} is run by somebody else: it is not ours to break")
        return self.process
