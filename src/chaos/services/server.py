"""A server of our own as plain processes: it is killed, frozen, or ended in order, and comes back.

It comes back at the same ports, on the same data. All of its processes are killed together: a Postgres that has lost
its postmaster alone goes on serving for a moment. So they are stopped first, parents before their children, that none
is born meanwhile. A server that is frozen stands still with all of its processes, as a container that is paused.
"""

from __future__ import annotations

import abc
import contextlib
import os
import signal
from typing import TYPE_CHECKING, ClassVar

from chaos.errors import ChaosError
from chaos.waiting import Deadline, wait_until
from chaos.workers.proc import alive, children, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.workers.supervisor import Process

_DEATH_S = 5.0
_STOP_S = 1.0


class Server(abc.ABC):
    """See the module's docstring. `process` is None for a server that somebody else runs; then all of it is refused."""

    name: str
    orderly: ClassVar[int] = signal.SIGTERM  # the signal by which it ends in order
    process: Process | None
    again: Callable[[], Process] | None  # start it on the data that it has

    @abc.abstractmethod
    def require_reachable(self, deadline: Deadline) -> None:
        """Wait until it answers."""

    def kill(self) -> None:
        """SIGKILL all of its processes; none is left when this returns.

        Raises:
            ChaosError: it is somebody else's.
            NotInTime: one is.
        """
        process, family = self._ours(), self.freeze()
        for pid in family:
            _send(pid, signal.SIGKILL)
        process.wait(Deadline(_DEATH_S))
        what = f"all processes of {self.name} to be gone"
        wait_until(what, lambda: [pid for pid in family if alive(pid)], Deadline(_DEATH_S), accept=_nobody)

    def freeze(self) -> list[int]:
        """Have all of its processes stand still; their ids, parents first.

        Raises:
            ChaosError: it is somebody else's, or has ended.
        """
        process = self._ours()
        process.require_running()
        return list(_stopped(process.pid))

    def thaw(self) -> None:
        """Have them go on."""
        for pid in reversed([*_family(self._ours().pid)]):
            _send(pid, signal.SIGCONT)

    def end(self, deadline: Deadline) -> None:
        """Have it end in order.

        Raises:
            NotInTime: it does not.
        """
        process = self._ours()
        process.signal(self.orderly)
        process.wait(deadline)

    @property
    def ended(self) -> bool:
        """Whether its first process has."""
        return self._ours().exit is not None

    def start_again(self, deadline: Deadline) -> None:
        """Start it on the data that it has; it answers when this returns.

        Raises:
            ProcessDied: it ended by itself.
            NotInTime: it does not answer.
        """
        if not self.ended:
            self.kill()
        assert self.again is not None  # noqa: S101 - for the type checker: what is ours can be started
        self.process = self.again()
        self.require_reachable(deadline)

    def _ours(self) -> Process:
        if self.process is None or self.again is None:
            raise ChaosError(f"this {self.name} is run by somebody else: it is not ours to break")
        return self.process


def _nobody(left: list[int]) -> bool:
    return not left


def _family(pid: int) -> list[int]:
    return [pid, *(one for child in children(pid) for one in _family(child))]


def _stopped(pid: int) -> list[int]:
    """Stop a process, then its children. One that is stopped has no more of them."""
    _send(pid, signal.SIGSTOP)
    wait_until(f"process {pid} to stand still", lambda: state(pid) in "TZX", Deadline(_STOP_S), every=0.001)
    return [pid, *(one for child in children(pid) for one in _stopped(child))]


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
