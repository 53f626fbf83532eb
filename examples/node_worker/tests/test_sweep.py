"""Every place at which the worker can be broken, in every way, with nothing said about where these places are."""

from pathlib import Path

import pytest
from chaos import System

POINTS = Path(__file__).with_name("points.txt")


@pytest.mark.drills
def test_every_point(payouts: System) -> None:
    """Each payout is made once and told, wherever a worker is broken; and there are no other places than in points.txt."""
    payouts.sweep(baseline=POINTS).require_holds()
