"""A real Prometheus with the rules as they are shipped tells of a slot before it is lost; then the runbook mends it.

On a Postgres of its own, which keeps 64 MB of log for a slot and gives it up then. Orders are placed all the time.
"""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import psycopg
import pytest

from chaos import Session
from chaos.waiting import Deadline, wait_until
from tests.fix_observed import PATIENCE_S, observed
from tests.lines import Series, page
from tests.twins import never_confirms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from tests.fix_observed import Site

pytestmark = pytest.mark.drills

FILLER = "select pg_logical_emit_message(false, 'filler', repeat('x', 6 * 1024 * 1024))"
LOST = "select wal_status = 'lost' from pg_replication_slots"
IN_TIME = 'pipeline_slot_left_ratio < 0.25 or pipeline_slot_status{status="unreserved"} == 1'
WARNINGS = ("SlotFallsBehind", "SlotAlmostLost")
RELAYS: Mapping[str, Mapping[str, Callable[[], object]]] = {
    "dead": {},
    "never confirms": {"relay": never_confirms.main},
}
MB = 1024**2


class Look(NamedTuple):
    """What was so at a moment."""

    at_s: float  # from the beginning
    safe_bytes: float | None  # left until the slot is lost
    firing: set[str]
    lost: bool


def silent(rules: str) -> str:
    """BUG: nobody is told that it is urgent."""
    return re.sub(r"(?ms)^      - alert: SlotAlmostLost\n.*?(?=^      - alert)", "", rules)


def too_late(rules: str) -> str:
    """BUG: should tell of it while there is time."""
    return rules.replace(IN_TIME, 'pipeline_slot_status{status="lost"} == 1')


@pytest.fixture
def site(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """With relay and rules as the parameter says; the relay reads the log, and its server gives slots up."""
    relay, rules = request.param
    with (
        Session(tmp_path / "own") as own,
        observed(own, cdc=True, rules=rules, workers=RELAYS[relay]) as site,
    ):
        site.lane.execute("alter system set max_slot_wal_keep_size = '64MB'")
        site.lane.execute("select pg_reload_conf()")
        if relay == "dead":
            site.confirmed_s()
            site.pipeline.processes["relay"].kill()
        yield site


def stall(site: Site, enough: Callable[[Look], bool]) -> list[Look]:
    """Write log until it is enough, no faster than Prometheus looks; what was so meanwhile."""
    seen: list[Look] = []
    began = time.monotonic()
    with psycopg.connect(site.lane.postgres, autocommit=True) as connection:
        while not seen or not enough(seen[-1]):
            connection.execute(FILLER)
            connection.execute("checkpoint")
            written = time.time()
            wait_until("a scrape", partial(site.prometheus.scraped, written), Deadline(PATIENCE_S), every=0.1)
            safe, firing = site.prometheus.value("pipeline_slot_safe_bytes"), site.prometheus.alerts()
            [(lost,)] = connection.execute(LOST).fetchall()  # at last: what is not lost by now was not when that fired
            seen.append(Look(time.monotonic() - began, safe, firing, lost))
            assert len(seen) < 60, "the slot is kept for ever"
    return seen


def lost(look: Look) -> bool:
    """Whether the slot is."""
    return look.lost


def warned(seen: list[Look]) -> set[str]:
    """The alerts that have fired before the slot was lost."""
    return set().union(*(look.firing for look in seen if not look.lost)) & {*WARNINGS, "SlotLost"}


def stop_the_relay(site: Site) -> None:
    """If it is not dead."""
    if site.pipeline.processes["relay"].exit is None:
        site.pipeline.processes["relay"].kill()


def all_is_well(site: Site) -> None:
    """The runbook's checklist passes, nothing fires, and no order is lost."""
    site.follow("Verification")
    assert site.confirmed_s() < 1
    site.quiet()
    site.judge()


@pytest.mark.parametrize("site", [(relay, str) for relay in RELAYS], indirect=True, ids=RELAYS)
def test_the_alert_fires_before_the_slot_is_lost(
    site: Site, onecharge: Session, request: pytest.FixtureRequest
) -> None:
    """At half of the way and shortly before, whether the relay is dead or confirms nothing; then it is mended."""
    seen = stall(site, lost)
    assert warned(seen) == {*WARNINGS}
    assert {"SlotFallsBehind"} in [look.firing & {*WARNINGS} for look in seen]
    draw(onecharge.output / "reports", request.node.callspec.id, seen)
    site.fires("SlotLost")
    stop_the_relay(site)
    site.follow("SlotLost")
    all_is_well(site)


@pytest.mark.parametrize("site", [(relay, str) for relay in RELAYS], indirect=True, ids=RELAYS)
def test_there_is_time_to_save_the_slot(site: Site) -> None:
    """Who does what the runbook says when the alerts fire keeps the slot."""
    [*_, last] = stall(site, lambda look: look.lost or {*WARNINGS} <= look.firing)
    assert not last.lost
    stop_the_relay(site)
    site.follow("SlotFallsBehind")
    site.follow("SlotAlmostLost")
    all_is_well(site)
    assert site.lane.look(LOST) == [(False,)]


@pytest.mark.parametrize("site", [("dead", silent), ("dead", too_late)], indirect=True, ids=["silent", "too late"])
def test_a_late_alert_is_found(site: Site) -> None:
    """Where nothing fires shortly before, the slot is lost with no more than the first warning."""
    assert warned(stall(site, lost)) == {"SlotFallsBehind"}
    site.fires("SlotLost")


def draw(reports: Path, name: str, seen: list[Look]) -> None:
    """What was left over time, and when which alert fired."""
    left = [(look.at_s, look.safe_bytes / MB) for look in seen if look.safe_bytes is not None]
    marks = {alert: next(look.at_s for look in seen if alert in look.firing) for alert in WARNINGS}
    marks["lost"] = seen[-1].at_s
    file = reports / "slot-alarm" / f"{name}.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(page("A slot and its alerts", [Series("left until it is lost, MB", left)], marks), encoding="utf-8")
