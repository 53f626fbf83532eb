"""Waiting ends when what is waited for came, or at the deadline with what was seen last."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from chaos.errors import NotInTime
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_value_is_returned() -> None:
    """The first value that is accepted is returned, after as many probes as it takes."""
    numbers = itertools.count()

    assert wait_until("three", lambda: next(numbers), Deadline(10), accept=lambda n: n == 3, every=0) == 3
    assert next(numbers) == 4


def test_expected_errors_are_not_yet() -> None:
    """An exception of an expected kind means "not yet"; any other ends the waiting."""
    answers: Iterator[Exception | str] = iter([OSError("one"), OSError("two"), "here", ValueError("other")])

    def probe() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert wait_until("it", probe, Deadline(10), retry_on=(OSError,), every=0) == "here"
    with pytest.raises(ValueError, match="other"):
        wait_until("it", probe, Deadline(10), retry_on=(OSError,), every=0)


def test_deadline_tells_what_was_seen_last(tmp_path: Path) -> None:
    """A missed deadline says what was awaited, how long, what was seen last, and shows the ends of the logs."""
    log = tmp_path / "server.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)))

    def refuse() -> bool:
        msg = "refused"
        raise ConnectionError(msg)

    with pytest.raises(NotInTime) as raised:
        wait_until("the server", refuse, Deadline(0.02), retry_on=(OSError,), logs=[log])

    text = str(raised.value)
    assert text.startswith("waited 0.02 s for the server; last seen: ConnectionError: refused\n")
    assert str(log) in text
    assert "line 99" in text
    assert "line 84" not in text
    assert isinstance(raised.value, TimeoutError)


def test_passed_deadline_still_probes_once() -> None:
    """With no time left there is one probe, so that what is already there is found."""
    past = Deadline(0)
    assert past.passed

    assert wait_until("it", lambda: "there", past) == "there"
    with pytest.raises(NotInTime):
        wait_until("it", lambda: "", past)


def test_deadline_counts_down() -> None:
    """A deadline has less and less left, down to nothing and never below."""
    deadline = Deadline(0.01)
    first = deadline.left
    wait_until("the deadline", lambda: deadline.passed, Deadline(5))

    assert 0 < first <= 0.01
    assert deadline.left == 0
