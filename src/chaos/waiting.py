"""Waiting on conditions, with one deadline.

A `Deadline` is made once, where a caller says how long something may take, and handed down; nobody below starts a
clock of their own. All clocks are monotonic.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

from chaos.errors import NotInTime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

T = TypeVar("T")


class Deadline:
    """A moment by which something has to be done, `seconds` from now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds left; 0 when it has passed."""
        return max(0.0, self._at - time.monotonic())

    @property
    def passed(self) -> bool:
        """Whether no time is left."""
        return self.left == 0

    def missed(self, what: str, last: object, logs: Iterable[Path] = ()) -> NotInTime:
        """The error to raise when `what` did not come in time."""
        return NotInTime(what, seconds=self.seconds, last=last, logs=logs)


def wait_until(
    what: str,
    probe: Callable[[], T],
    deadline: Deadline,
    *,
    accept: Callable[[T], bool] = bool,
    retry_on: tuple[type[Exception], ...] = (),
    logs: Iterable[Path] = (),
    every: float = 0.01,
) -> T:
    """Call `probe` until `accept` takes its value, and return that value.

    Exceptions of the kinds in `retry_on` count as "not yet". At least one probe is made, also when the deadline has
    passed already. For conditions that can only be asked for; what announces itself is waited for by its event.

    Raises:
        NotInTime: with the last value or exception seen.
    """
    while True:
        last: object
        try:
            last = value = probe()
            if accept(value):
                return value
        except retry_on as error:
            last = f"{type(error).__name__}: {' '.join(str(error).split())}"
        if deadline.passed:
            raise deadline.missed(what, last, logs)
        time.sleep(min(every, deadline.left))
