"""The test process's side of a lane's wire: starts its process, tells it what to do, hears what happens.

Commands may be given from any thread and return when they were carried out. Events are heard in the supervisor's hub,
one after the other, in the order in which they happened; what hears them must not wait.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING, Any

from chaos.errors import ChaosError
from chaos.waiting import Deadline
from chaos.wire.messages import Carried, Done, decode_event, encode

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from chaos.wire.messages import Command, Event
    from chaos.workers.supervisor import Supervisor

_START_S = 30.0
_ANSWER_S = 20.0
_MAIN = "chaos.wire.process"


class Wire:
    """A wire process. Use it as a context manager; leaving it ends the process and every connection through it."""

    def __init__(self, supervisor: Supervisor, name: str) -> None:
        self._supervisor, self._name = supervisor, name
        self.hear: Callable[[Event], None] = lambda _event: None
        self._answers: dict[int, Done | None] = {}
        self._number = 0
        self._rest = b""
        self._gone = False
        self._failure: Exception | None = None

    def __enter__(self) -> Self:
        supervisor, deadline = self._supervisor, Deadline(_START_S)
        path = supervisor.run_dir / f"wire-{self._name}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(str(path))
            listening.listen(1)
            environment = {**os.environ, "ONECHARGE_WIRE": str(path)}
            zygote = supervisor.zygote([_MAIN])
            log = f"{self._name}-wire"
            self.process = zygote.fork(log, f"{_MAIN}:main", env=environment, cwd=supervisor.run_dir)
            listening.settimeout(0.05)
            while True:
                with contextlib.suppress(TimeoutError):
                    self._connection = listening.accept()[0]
                    break
                self.process.require_running()
                if deadline.passed:
                    raise deadline.missed("the wire process to connect", "nothing", [self.process.log])
        path.unlink()
        self._connection.setblocking(True)
        supervisor.hear(self._connection, self._take_in)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)  # its order to end
        self._supervisor.wait_for(lambda: self._gone, Deadline(_ANSWER_S))
        self.process.kill()

    def do(self, command: Callable[[int], Command]) -> tuple[str, ...]:
        """Have the wire carry out ``command(number)`` and return what it found.

        Raises:
            ChaosError: it could not.
            NotInTime: it does not answer.
            ProcessDied: it is gone.
        """
        if self._failure is not None:
            raise ChaosError(f"what the wire said could not be taken in: {self._failure!r}") from self._failure
        with self._supervisor.changing():
            self._number += 1
            number = self._number
            self._answers[number] = None
            self._send(command(number))
        deadline = Deadline(_ANSWER_S)
        self._supervisor.wait_for(lambda: self._answers[number] is not None or self._gone, deadline)
        with self._supervisor.changing():
            answer = self._answers.pop(number)
        if answer is None:
            self.process.require_running()
            raise deadline.missed("the wire to answer", "silence", [self.process.log])
        if answer.error:
            raise ChaosError(f"the wire could not do what it was told: {answer.error}")
        return answer.found

    def carried(self, order: int, error: str = "", *, taken: bool = False) -> None:
        """Say that an order of the wire was carried out, or why not; `taken`: its worker will be brought back."""
        with self._supervisor.changing():
            self._send(Carried(order, error, taken))

    def _send(self, command: Command) -> None:
        with contextlib.suppress(OSError):  # a wire that is gone is said by who waits for it
            self._connection.sendall(encode(command) + b"\n")

    def _take_in(self, data: bytes) -> None:
        """In the hub's thread."""
        if not data:
            with self._supervisor.changing():
                self._gone = True
            return
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            event: Any = decode_event(line)
            if isinstance(event, Done):
                with self._supervisor.changing():
                    if event.number in self._answers:
                        self._answers[event.number] = event
            else:
                try:
                    self.hear(event)
                except Exception as error:  # noqa: BLE001 - the hub is everybody's; whose fault it was hears of it
                    self._failure = self._failure or error
