"""What `python -m pipeline up` does when its workers end."""

from __future__ import annotations

import re
import signal
import sys
import time
from typing import TYPE_CHECKING

import pytest

from chaos import Worker
from pipeline import up
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane, Session


def ends() -> None:
    """A worker that does not come into being."""
    sys.exit("there is a setting that is wrong")


def stays() -> None:
    """A worker."""
    signal.pause()


@pytest.fixture
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane of its own, as it has a gateway."""
    with onecharge.lane(topics={}) as lane:
        yield lane


def started(lane: Lane, main: Callable[[], object]) -> up.Pipeline:
    """A pipeline of one worker, which has been started."""
    pipeline = up.Pipeline(lane)
    pipeline.workers = {"relay": Worker("relay", main)}
    pipeline.start_one("relay")
    return pipeline


def test_who_ends_at_its_start_is_given_time(lane: Lane, capsys: pytest.CaptureFixture[str]) -> None:
    """It is started again later and later, and not as often as one can look; when that is, is said."""
    pipeline = started(lane, ends)
    seen = set()

    def ended_twice() -> bool:
        pipeline.restart_the_dead()
        seen.add(pipeline.processes["relay"].pid)
        return len(seen) > 1 and pipeline.processes["relay"].exit is not None

    began = time.monotonic()
    until(ended_twice)
    assert time.monotonic() - began >= up.FIRST_PAUSE_S
    pipeline.restart_the_dead()
    said = capsys.readouterr().out
    assert re.findall(r"relay .+; it is started again in (\S+ s)", said) == ["0.5 s", "1 s"]


def test_who_has_lived_is_back_at_once(
    lane: Lane, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who was killed at its work does not wait, however it had begun."""
    pipeline = started(lane, stays)

    def lives() -> bool:
        pipeline.restart_the_dead()
        return pipeline.processes["relay"].exit is None

    for steady_s in (3600.0, 0.0):
        monkeypatch.setattr(up, "STEADY_S", steady_s)
        dead = pipeline.processes["relay"]
        dead.kill()
        pipeline.restart_the_dead()
        assert (pipeline.processes["relay"] is dead) == (steady_s > 0)
        until(lives)
    assert [" in " in line for line in capsys.readouterr().out.splitlines()] == [True, False]
