"""One process of a run: how it is spoken of, whoever has started it and however it is ended.

Those that a keeper starts are `chaos.workers.supervisor`'s; those in a container are `chaos.services.container`'s.
"""

from __future__ import annotations

import abc
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.errors import ProcessDied
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from pathlib import Path

    from chaos.workers.supervisor import Supervisor

ANSWER_S = 10.0


@dataclass(frozen=True)
class Exit:
    """How a process ended: an exit code of 0 or more, or minus the number of the signal that ended it.

    `lost` says why that is not known, if it is not.
    """

    status: int
    lost: str = ""

    def __str__(self) -> str:
        if self.lost:
            return f"cannot be seen any more: {self.lost}"
        if self.status >= 0:
            return f"exited with code {self.status}"
        known = {number.value: number.name for number in signal.Signals}
        return f"was ended by {known.get(-self.status, f'signal {-self.status}')}"


class Process(abc.ABC):
    """A process, and what has come of it. `exit` is None while it runs; its output is in `log`."""

    def __init__(self, supervisor: Supervisor, name: str, log: Path) -> None:
        self.name, self.log = name, log
        self.pid = 0
        self.exit: Exit | None = None
        self._supervisor = supervisor

    @abc.abstractmethod
    def signal(self, number: int) -> bool:
        """Send it a signal, and those that belong to it; False if it had ended before."""

    @abc.abstractmethod
    def freeze(self) -> list[int]:
        """Have all of its processes stand still, also those that have left its group; their ids, parents first."""

    @abc.abstractmethod
    def thaw(self) -> None:
        """Have them go on."""

    @abc.abstractmethod
    def destroy(self) -> None:
        """SIGKILL all of its processes, frozen or not, and return when none is left.

        Raises:
            NotInTime: one is.
        """

    @abc.abstractmethod
    def forget(self) -> None:
        """Remove what it leaves behind that nobody needs when it is not started again."""

    def kill(self) -> Exit:
        """Have it ended by SIGKILL and wait until it is gone."""
        self.signal(signal.SIGKILL)
        return self.wait(Deadline(ANSWER_S))

    def stop(self, deadline: Deadline) -> Exit:
        """Ask it to end (SIGTERM); kill it if it does not by the deadline."""
        self.signal(signal.SIGTERM)
        if not self._supervisor.wait_for(lambda: self.exit is not None, deadline):
            return self.kill()
        return self.wait(deadline)

    def wait(self, deadline: Deadline) -> Exit:
        """How it ended.

        Raises:
            NotInTime: it still runs.
        """
        if not self._supervisor.wait_for(lambda: self.exit is not None, deadline):
            raise deadline.missed(f"{self.name} (pid {self.pid}) to end", "running", [self.log])
        assert self.exit is not None  # noqa: S101 - for the type checker; just waited for
        return self.exit

    def require_running(self) -> None:
        """Raise `ProcessDied`, with the log's end, if it is not running."""
        if self.exit is not None:
            raise ProcessDied(self.name, how=self.exit, log=self.log)
