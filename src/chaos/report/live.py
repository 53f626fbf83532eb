"""How far something is that takes long: one line on a terminal, written over again and again; nothing elsewhere."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

_EVERY_S = 0.1


class Live:
    """A line on `stream`, if that is a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream if stream.isatty() else None
        self._next = 0.0
        self._shown = False

    def __call__(self, text: str) -> None:
        """Show this in place of what was shown, but not more often than somebody can read."""
        if self._stream is None or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY_S
        width = shutil.get_terminal_size().columns - 1
        self._stream.write(f"\r\x1b[K{text if len(text) <= width else text[: width - 1] + '…'}")
        self._stream.flush()
        self._shown = True

    def step(self, what: str, done: int, total: int) -> None:
        """Show a slow step of a first run, such as a download."""
        self(f"{what} {100 * done // max(1, total)} %")

    def close(self) -> None:
        """Take the line away."""
        if self._shown and self._stream is not None:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
