"""The page about the hops is what the rooms declare, and each drill that it names is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import hops
from pipeline.observe.gauges import HOPS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("name", "made"), [("hops.md", hops.page), ("hops.svg", hops.picture)])
def test_the_page_is_what_the_code_says(name: str, made: object) -> None:
    """`python -m pipeline.hops docs` was run after the last change."""
    assert callable(made)
    assert (ROOT / "docs" / name).read_text(encoding="utf-8") == made()


def test_the_drills_are_there() -> None:
    """Each hop names drills that hold its promise, and each that is named is there."""
    named = {name for hop in hops.hops().values() for name in hop.drills}
    assert all((ROOT / "tests" / "drills" / f"test_{name}.py").exists() for name in named)
    assert all(hop.drills for hop in hops.hops().values())


def test_rooms_and_gauges_speak_of_the_same_hops() -> None:
    """A gauge is about a hop that there is."""
    assert hops.ROOMS == HOPS
