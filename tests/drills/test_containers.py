"""One order, one charge, where the payment group, Postgres and Kafka are containers, and are killed from outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_containers import WORKER
from tests.fix_pipeline import require_away_and_back, thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session, System

pytestmark = [pytest.mark.drills, pytest.mark.docker]

POINTS = ("payment/http.post[key-1]#1", "payment/postgres.commit[key-2]#1", "payment/kafka.offset_commit[key-1]#1")
CRASHES = ("crash-before", "crash-after", "crash-late", "lose-reply", "freeze=held,0.2")


def payment(module: str) -> str:
    """The command line of a payment group in the image."""
    return f"python3 -c 'from {module} import main; main()'"


@pytest.fixture(scope="module")
def system(containers: Session) -> Iterator[System]:
    """With servers that may be broken, and a payment group in containers."""
    with thin_pipeline(containers, payment("tests.thin.payment"), image=WORKER, own_servers=True) as system:
        yield system


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("crash", CRASHES)
def test_one_charge(system: System, point: str, crash: str) -> None:
    """A container is killed, loses replies, and stands still where a process would."""
    verdict = system.drill(f"{point}:{crash}")
    verdict.require_holds()
    assert len(verdict.fired) == 1


@pytest.mark.parametrize("server", ["postgres", "kafka"])
@pytest.mark.parametrize("outage", ["kill", "restart", "freeze=1"])
def test_lost_servers(system: System, server: str, outage: str) -> None:
    """A server's container is killed, or started anew, and comes back with what it knew."""
    verdict = system.drill(f"{server}:{outage}@payment/http.post[key-1]#1")
    require_away_and_back(verdict, server)


@pytest.mark.parametrize("toxic", ["timeout=1,both", "latency=1,both,latency_ms:200", "down=1"])
def test_bad_networks(system: System, toxic: str) -> None:
    """A container has a bad network to one service alone, by way of a Toxiproxy that is in one, too."""
    system.drill(f"payment-postgres:{toxic}@payment/http.post[key-1]#1").require_holds()


def test_double_charge_is_found(containers: Session) -> None:
    """A group in a container whose request is not recognised when repeated charges twice, and the drill says so."""
    with thin_pipeline(containers, payment("tests.twins.no_inbox_no_key"), image=WORKER) as system:
        verdict = system.drill("payment/http.post[key-1]#1:crash-after")
    assert [violation.invariant for violation in verdict.violations] == ["one effect per key"]
    assert verdict.effects(verdict.violations[0].key) == 2


def test_one_that_ends_by_itself(containers: Session) -> None:
    """The verdict is unknown, and says what the container has said last."""
    with thin_pipeline(containers, "ls 'no such luck'", image=WORKER) as system:
        verdict = system.drill("payment/http.post[key-1]#1:crash-after")
    assert verdict.status == "unknown"
    assert "no such luck" in verdict.story()
