"""Work that nobody should wait for, done by a thread of its own."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.waiting import Deadline


class Errands:
    """A thread that does what it is given, one after the other, until it is closed. What it is given must not raise."""

    def __init__(self, name: str) -> None:
        self._queue: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, errand: Callable[[], None]) -> None:
        """Have it done, soon."""
        self._queue.put(errand)

    def finish(self, deadline: Deadline) -> bool:
        """Return when what was given until now is done; whether it is."""
        done = threading.Event()
        self._queue.put(done.set)
        return done.wait(deadline.left)

    def close(self) -> None:
        """Return when all was done."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (errand := self._queue.get()) is not None:
            errand()
