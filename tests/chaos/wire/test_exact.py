"""Kills and losses are exact; `benchmarks.exact` does the same with large numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.chaos.wire import exact_workers
from tests.chaos.wire.exact import kills, losses

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import Session


@pytest.mark.parametrize("run", [exact_workers.pipelined, exact_workers.one_by_one])
def test_nothing_lands_after_a_kill(onecharge: Session, run: Callable[[], None]) -> None:
    """When a kill has fired, no row, message or request of the dead worker lands any more, and no session is left."""
    landed = kills(onecharge, run, 25)
    assert landed.late == 0, landed
    assert landed.effects > 25 * 4


def test_a_naive_kill_is_found_out(onecharge: Session) -> None:
    """SIGKILL alone is no cut, and the count of what lands late sees it."""
    assert kills(onecharge, exact_workers.pipelined, 25, naive=True).late > 0


@pytest.mark.parametrize(
    ("fault", "idempotence", "messages"),
    [("lose-request", "off", 30), ("lose-reply", "off", 31), ("lose-request", "on", 30), ("lose-reply", "on", 30)],
)
def test_losses(onecharge: Session, fault: str, idempotence: str, messages: int) -> None:
    """Of thirty messages with five in flight one is lost or doubled, by the producer's own doing, and no other."""
    assert losses(onecharge, fault, idempotence=idempotence, count=8) == [messages] * 8
