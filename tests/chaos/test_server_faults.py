"""Lost servers in schedules: a service is killed, frozen, or started anew at a point, for everybody, and comes back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos import ChaosError, System, UnknownName, Worker, history, nothing_lost
from chaos.services.server import Server
from tests.chaos.network_workers import courier, couriers, forgetful
from tests.chaos.test_bad_links import AT, events

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session


@pytest.fixture(scope="module")
def system(onecharge: Session) -> Iterator[System]:
    """Couriers and a service that notes each thing once."""
    with couriers(onecharge) as system:
        yield system


@pytest.mark.parametrize("outage", ["kill", "kill=0.3", "freeze=0.3", "restart", "restart=0.3"])
def test_holds(system: System, outage: str) -> None:
    """It is away from the point on for as long as was said, is back with what it knew, and that is told."""
    before = system.lane.server("depot").process
    verdict = system.drill(f"depot:{outage}@{AT}")
    verdict.require_holds()
    [fired] = verdict.fired
    assert fired.fault == f"depot:{outage}@near~0/http.post#1"
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    assert spoiled.links == healed.links == ("depot",)
    assert healed.at - spoiled.at >= float(outage.partition("=")[2] or 0)
    assert (system.lane.server("depot").process is before) == outage.startswith("freeze")


def test_everybody_loses_it(system: System) -> None:
    """Who comes to no point is not answered either, until it is back."""
    verdict = system.drill(f"depot:freeze=0.5@{AT}")
    verdict.require_holds()
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    done = [event.at for event in verdict.history if isinstance(event, history.Replied) and event.outcome == "done"]
    assert len(done) >= 2  # who has waited in vain asked again
    assert not [at for at in done if spoiled.at + 0.1 < at < healed.at - 0.1]


def test_with_a_crash(system: System) -> None:
    """A worker that is killed while its server is away comes back before or after it does."""
    schedule = f"depot:kill=0.2@{AT}; near/http.post#2:crash-before"
    verdict = system.drill(schedule)
    assert verdict.status == "holds", verdict.story(events=True)


def test_what_it_has_forgotten_is_found(onecharge: Session) -> None:
    """A service that notes again what it is sent again does so behind its own outage."""
    with couriers(onecharge, forgetful) as system:
        assert system.drill(f"depot:freeze=0.5@{AT}").status == "violated"  # its client asks again after 0.2 s


def test_the_kernel_answers_for_nobody(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server is back when it has answered itself; one that a drill has left frozen is back before the next."""
    monkeypatch.setattr("chaos.network._BACK_S", 2.0)
    with couriers(onecharge) as system:
        with monkeypatch.context() as patch:
            patch.setattr(Server, "thaw", lambda _: None)
            verdict = system.drill(f"depot:freeze=0.1@{AT}")
        assert verdict.status == "unknown"
        assert not verdict.fired
        assert "depot at http://127.0.0.1:" in str(verdict.reasons)
        system.drill().require_holds()


def test_servers_of_others(onecharge: Session) -> None:
    """A server that other lanes use is not broken: that is an error, and says what to do."""
    with onecharge.lane(schema="") as lane:
        depot = lane.trusted("depot", forgetful, ledger="depot.jsonl", key="tag")
        (lane.files / "near").mkdir()
        near = Worker("near", courier, env={"ORDERS": "{files}/near", "HTTP_URL": depot.url, "DB": "{postgres}"})
        with System(
            lane, workers=[near], workload=lambda _: None, settled=[], invariants=[nothing_lost(depot.ledger)]
        ) as system:
            with pytest.raises(ChaosError, match=r"other drills use it\. Make the lane with own_servers=True"):
                system.drill(f"postgres:kill@{AT}")
            with pytest.raises(UnknownName, match="no link 'depto': did you mean 'depot'"):
                system.drill(f"depto:kill@{AT}")
            with pytest.raises(UnknownName, match="no server 'near-depot'"):
                system.drill(f"near-depot:kill@{AT}")
