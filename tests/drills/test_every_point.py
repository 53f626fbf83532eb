"""One order, one charge, at every point that the pipeline has, in every way that there is to break it.

Nothing here says where the pipeline can be broken: recordings find it, an audit says that they have found all of it,
and `points.txt` beside this file makes a new point show in a diff.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fix_pipeline import thin_pipeline

if TYPE_CHECKING:
    from chaos import Session

pytestmark = pytest.mark.drills

POINTS = Path(__file__).with_name("points.txt")
LOSSES = ("crash-before", "crash-after", "lose-request", "lose-reply")


def test_every_point(onecharge: Session) -> None:
    """Each of three interleaved orders is charged once, whatever is broken, wherever, with two payment replicas."""
    with thin_pipeline(onecharge, replicas=2, partitions=4) as system:
        system.sweep(baseline=POINTS).require_holds()


def test_every_point_of_dynamic_members(onecharge: Session) -> None:
    """So it is where partitions go from one replica to another because nobody has a fixed place in the group."""
    with thin_pipeline(onecharge, replicas=2, partitions=4, dynamic=True) as system:
        sweep = system.sweep(faults=LOSSES, only=["payment"])
    sweep.require_holds()
    assert sweep.broken == sweep.selected


def test_healthy_order_of_effects(onecharge: Session) -> None:
    """Effects and checkpoints are in the order of time, which gives nothing away; names of points stay the same."""
    with thin_pipeline(onecharge, replicas=2, partitions=4) as system:
        recordings = [system.record() for _ in range(5)]
    for at in [[event.at for event in run.history] for recording in recordings for run in recording.runs]:
        assert at == sorted(at)
    assert [recording.advice for recording in recordings] == [[]] * 5
    assert len({tuple(sorted(recording.points)) for recording in recordings}) == 1
    assert all(recording.reasons == () for recording in recordings)
