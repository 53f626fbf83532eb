"""A message that Kafka has refused is sent again, also where the client reports that it was delivered.

See `tests/twins/implied_delivery.py` for how that comes about.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.twins.systems import IMPLIED_DELIVERY

if TYPE_CHECKING:
    from chaos import Session

pytestmark = pytest.mark.drills

TWIN = IMPLIED_DELIVERY
TIMES = 3


def test_a_refused_first_message_is_sent_again(onecharge: Session) -> None:
    """A relay that asks for the offset loses nothing when the first message of a new producer is refused."""
    with TWIN.brother(onecharge) as system:
        for schedule in TWIN.schedules * TIMES:
            verdict = system.drill(schedule)
            verdict.require_holds()
            assert len(verdict.fired) == len(verdict.schedule.faults), verdict.story(events=True)


def test_it_is_lost_by_who_believes_every_report(onecharge: Session) -> None:
    """A relay that does not has marked what the topic has not, and the order is never charged."""
    with TWIN.system(onecharge) as system:
        for schedule in TWIN.schedules * TIMES:
            verdict = system.drill(schedule)
            broken = {violation.invariant for violation in verdict.violations}
            assert broken == {TWIN.invariant}, verdict.story(events=True)
