"""Combinations of faults in several workers: the pipeline holds under what is drawn, and what needs two is found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

import chaos
from tests.fix_pipeline import thin_pipeline
from tests.twins.systems import TWO_FAULT_TWINS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lanes, Schedule, Session, System

pytestmark = pytest.mark.drills


@pytest.fixture(scope="module")
def pipelines(onecharge: Session) -> Iterator[Lanes]:
    """The correct pipeline, twice."""
    with onecharge.lanes(partial(thin_pipeline, replicas=2, partitions=4), 2) as lanes:
        yield lanes


@chaos.explore(max_faults=3, seconds=20)
def test_any_combination(pipelines: System, schedule: Schedule) -> None:
    """Each order is charged once under any three faults in any workers."""
    pipelines.drill(schedule).require_holds()


def test_what_needs_two_faults_is_found(onecharge: Session) -> None:
    """A bug that no single fault shows is found, made smaller, and shown again."""
    twin = TWO_FAULT_TWINS["message_for_event"]
    with onecharge.lanes(twin.system, 2) as lanes:
        found = lanes.explore(seconds=120)
        assert found.counterexample is not None, found.story()
        smallest = found.counterexample.smallest
        assert {violation.invariant for violation in smallest.violations} == {twin.invariant}
        # It has a second way to show, which needs the relay to die twice: both workers it always needs.
        assert {fault.worker for fault in smallest.schedule.faults} == {"payment", "relay"}, found.story()
        assert found.counterexample.violated >= 1
