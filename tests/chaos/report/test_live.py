"""The line that is written over again and again, on a real terminal and where there is none."""

from __future__ import annotations

import io
import os
import pty
import time
from typing import TYPE_CHECKING

import pytest

from chaos.report.live import Live

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

CLEAR = "\r\x1b[K"


class Terminal:
    """A pseudo terminal: `stream` writes to it, `shown` is all that it was sent."""

    def __init__(self, stream: TextIO, other: int) -> None:
        self.stream, self._other = stream, other

    def shown(self) -> str:
        """What was written since it was asked last: up to a mark, as it comes through a moment after it was written."""
        self.stream.write("\0")
        self.stream.flush()
        text = b""
        while not text.endswith(b"\0"):
            text += os.read(self._other, 65536)
        return text[:-1].decode()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 40 columns."""
    monkeypatch.setenv("COLUMNS", "40")
    other, own = pty.openpty()
    with os.fdopen(own, "w") as stream:
        yield Terminal(stream, other)
    os.close(other)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time that `Live` sees, to be changed."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    yield now
    monkeypatch.undo()


def test_line_is_written_over(terminal: Terminal, clock: list[float]) -> None:
    """Each text takes the place of the one before, and at the end nothing is left of the last."""
    live = Live(terminal.stream)
    live("swept 1 of 9")
    assert terminal.shown() == f"{CLEAR}swept 1 of 9"
    clock[0] += 1
    live.step("fetching Kafka", 30, 60)
    assert terminal.shown() == f"{CLEAR}fetching Kafka 50 %"
    live.close()
    assert terminal.shown() == CLEAR


def test_no_more_often_than_somebody_can_read(terminal: Terminal, clock: list[float]) -> None:
    """Thousands of schedules a second do not make thousands of writes."""
    live = Live(terminal.stream)
    for number in range(1000):
        live(f"{number}")
        clock[0] += 0.001
    assert 5 <= terminal.shown().count(CLEAR) <= 12


def test_long_line_is_cut(terminal: Terminal) -> None:
    """A line that wraps could not be written over, so it is cut to the terminal's width."""
    Live(terminal.stream)("x" * 100)
    assert terminal.shown() == f"{CLEAR}{'x' * 38}…"


def test_unknown_total(terminal: Terminal) -> None:
    """A step of which nobody knows how long it is breaks nothing."""
    Live(terminal.stream).step("fetching", 0, 0)
    assert terminal.shown() == f"{CLEAR}fetching 0 %"


def test_nothing_to_take_away(terminal: Terminal) -> None:
    """Where nothing was shown nothing is taken away."""
    Live(terminal.stream).close()
    assert terminal.shown() == ""


def test_nothing_where_nobody_looks() -> None:
    """In a file or a pipe there is no line, and not a byte of one."""
    stream = io.StringIO()
    live = Live(stream)
    live("swept 1 of 9")
    live.step("fetching", 1, 2)
    live.close()
    assert stream.getvalue() == ""
