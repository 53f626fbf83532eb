"""One order, one reservation, one mail for what became of it, where a member of the groups dies or is cut off."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.fix_groups import groups
from tests.twins import group_dedupe_in_memory, group_inbox_apart, group_no_inbox, group_offset_first

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

SCHEDULES = [
    "inventory/postgres.commit[key-1]#1:crash-before",
    "inventory/postgres.commit[key-1]#1:crash-after",
    "inventory/postgres.commit[key-2]#1:lose-reply",
    "inventory/postgres.commit[key-3]#2:crash-late",  # what it had reserved is given back
    "inventory/kafka.offset_commit[key-3]#2:crash-before",
    "notification/postgres.commit[key-1]#1:crash-before",
    "notification/postgres.commit[key-2]#1:lose-request",
    "notification/kafka.offset_commit[key-1]#2:crash-before",  # the first is for what is no outcome
]
RESERVED, MAILED = "one of reservations", "one of mails"


@pytest.fixture(
    scope="module",
    params=[groups, partial(groups, replicas=2, partitions=2, dynamic=True)],
    ids=["static", "dynamic"],
)
def system(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[System]:
    """The groups as static members, or as two dynamic ones each."""
    with request.param(onecharge) as system:
        yield system


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_once_per_event(system: System, schedule: str) -> None:
    """Nothing is reserved or mailed twice, nothing is forgotten, and the stock adds up."""
    verdict = system.drill(schedule)
    verdict.require_holds()
    assert len(verdict.fired) == 1


@pytest.mark.parametrize(
    ("make", "schedule", "invariant"),
    [
        (
            partial(groups, inventory=group_offset_first.main),
            "inventory/postgres.commit[key-1]#1:crash-before",
            RESERVED,
        ),
        (
            partial(groups, notification=group_no_inbox.main),
            "notification/kafka.offset_commit[key-1]#2:crash-before",
            MAILED,
        ),
        (
            partial(groups, notification=group_dedupe_in_memory.main),
            "notification/kafka.offset_commit[key-1]#2:crash-before",
            MAILED,
        ),
        (
            partial(groups, notification=group_inbox_apart.main),
            "notification/postgres.commit[key-1]#2:crash-before",
            MAILED,
        ),
    ],
    ids=["offset first", "no inbox", "dedupe in memory", "inbox apart"],
)
def test_twins_are_found(onecharge: Session, make: Make, schedule: str, invariant: str) -> None:
    """What is noted too early is lost, an offset or an inbox row; without an inbox that survives mails are doubled."""
    with make(onecharge) as system:
        verdict = system.drill(schedule)
    assert invariant in {violation.invariant for violation in verdict.violations}, verdict.story(events=True)
