"""One order, one charge, when a worker loses one of its services alone, for a second, in the middle of its work.

The other workers keep all of theirs. A twin is only right on a good network: what it does again behind the healing, it
does twice. A cut from Kafka alone is no trouble for a static member, whose commit its client repeats; one that was
expelled meanwhile is given the event again.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from chaos.history import Healed, Spoiled
from chaos.toxics import Down, Latency, LimitData, ResetPeer, Timeout
from tests.fix_pipeline import thin_pipeline
from tests.twins import new_key_per_attempt, no_idempotence, no_inbox_no_key

if TYPE_CHECKING:
    from chaos import Session, System
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

AT = "@payment/http.post[key-1]#1"
REPLY = "relay-kafka:timeout=1@relay/kafka.produce[key-1]#1"
EXPELLED = f"payment-kafka:down=1{AT}"  # a dynamic member, away for longer than its session
BROTHERS: dict[str, Make] = {
    f"payment-postgres:down=1{AT}": thin_pipeline,
    f"payment-gateway:timeout=1{AT}": thin_pipeline,
    EXPELLED: partial(thin_pipeline, dynamic=True),
    REPLY: partial(thin_pipeline, topic_judged=True),
}
TWINS: dict[str, Make] = {
    f"payment-postgres:down=1{AT}": partial(thin_pipeline, consumer=new_key_per_attempt.main),
    f"payment-gateway:timeout=1{AT}": partial(thin_pipeline, consumer=new_key_per_attempt.main),
    EXPELLED: partial(thin_pipeline, consumer=no_inbox_no_key.main, dynamic=True),
    REPLY: partial(thin_pipeline, relay=no_idempotence.main, topic_judged=True),
}
OTHERS = [
    EXPELLED,
    f"payment-kafka:timeout=1,both{AT}",
    f"payment-gateway:down=1{AT}",
    f"payment-postgres:latency=1,both,latency_ms:50,jitter_ms:20{AT}",
    f"payment-kafka:latency=1,both,latency_ms:50{AT}",
    f"payment-gateway:reset_peer=0.5{AT}",
    "relay-kafka:down=1@relay/kafka.produce[key-1]#1",
    "relay-postgres:down=1@relay/kafka.produce[key-1]#1",
    "api-postgres:down=0.5@api/postgres.commit[key-1]#1",
]


def require_cut_and_healed(system: System, schedule: str) -> None:
    """Each order is charged once, and the one link was bad and whole again before the verdict."""
    verdict = system.drill(schedule)
    verdict.require_holds()
    assert [fired.fault for fired in verdict.fired] == [str(fault) for fault in verdict.schedule.faults]
    [spoiled] = [event for event in verdict.history if isinstance(event, Spoiled)]
    [healed] = [event for event in verdict.history if isinstance(event, Healed)]
    worker, _, service = schedule.partition(":")[0].partition("-")
    assert spoiled.links == healed.links == (f"{worker}.0-{service}",)


@pytest.mark.parametrize("schedule", OTHERS)
def test_one_charge(orders: System, schedule: str) -> None:
    """Whoever loses whichever service, and however, each order is charged once."""
    require_cut_and_healed(orders, schedule)


def test_replication(onecharge: Session) -> None:
    """A relay that reads the log loses its stream of it, and takes it up again where it was."""
    with thin_pipeline(onecharge, from_log=True) as system:
        require_cut_and_healed(system, "relay-postgres:down=1@relay/kafka.produce[key-1]#1")


def test_hundred_cuts_of_kafka(orders: System) -> None:
    """A consumer's link to Kafka is cut and healed a hundred times: nothing hangs, no proxy is left, it goes on."""
    orders.drill(f"payment-kafka:down=0.1{AT}").require_holds()  # from here on it has a detour
    links = orders.lane.links
    ports = [link.listens for link in links.named("payment-kafka")]
    toxics = (Down(), Timeout(stream="both"), Latency(latency_ms=5), ResetPeer(), LimitData(most_bytes=20))
    for number in range(100):
        links.spoil(ports, toxics[number % len(toxics)])
        time.sleep(0.01)  # for what its client does, whatever that is
        links.heal(ports)
    assert set(links._detours.server.call("GET", "/proxies")) == {"payment.0-kafka"}
    orders.drill(f"payment-kafka:down=0.1{AT}").require_holds()


@pytest.mark.parametrize("schedule", TWINS)
def test_twin_is_found(onecharge: Session, schedule: str) -> None:
    """What is right on a good network alone does behind the cut what it had done before; its brother does not."""
    with TWINS[schedule](onecharge) as twin:
        verdict = twin.drill(schedule)
        assert verdict.fired, verdict.story(events=True)
        assert verdict.status == "violated", verdict.story(events=True)
    with BROTHERS[schedule](onecharge) as brother:
        require_cut_and_healed(brother, schedule)
