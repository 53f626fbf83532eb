"""The order pipeline as a system under test, and lanes to try its parts in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

import pipeline
from chaos import System, Worker, group_drained, no_rows, nothing_lost, one_effect_per_key
from chaos.history import Healed, Spoiled
from pipeline.gateway import server as gateway
from pipeline.publish import relay as relays
from pipeline.write import api as orders_api
from tests.fix_slot import outbox_slot, slot_confirmed
from tests.thin import payment
from tests.twins import newcomer, topic_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos import Lane, Run, Session, Verdict

    Main = Callable[[], object] | str

SCHEMA = Path(pipeline.__file__).with_name("schema.sql")


ORDER = {"customer_id": "c-1", "sku": "sku-1", "quantity": 1, "amount": 1999, "currency": "EUR"}


def place(run: Run, **wanted: object) -> None:
    """Place an order over HTTP, one that differs from `ORDER` in this. It has to be answered for from then on."""
    run.accept(run.post("/orders", ORDER | wanted)["order_id"])


def place_orders(run: Run, count: int = 3) -> None:
    """Place orders over HTTP; what is accepted must be charged once."""
    for number in range(count):
        place(run, customer_id=f"customer-{number}", amount=1200 + number)


def place_orders_and_rebalance(run: Run) -> None:
    """Place orders, and have the group rebalanced while the first of them is being charged."""
    place_orders(run)
    newcomer.invite(run, run.keys[0])


@contextlib.contextmanager
def thin_pipeline(
    session: Session,
    consumer: Main = payment.main,
    *,
    api: Main = orders_api.main,
    relay: Main = relays.main,
    replicas: int = 1,
    partitions: int = 1,
    dynamic: bool = False,
    rebalanced: bool = False,
    topic_judged: bool = False,
    from_log: bool = False,
    own_servers: bool = False,
    workload: Callable[[Run], object] | None = None,
    grace: float = 1.0,
    env: Mapping[str, str] = MappingProxyType({}),
    image: str = "",
    room_mb: int | None = None,
) -> Iterator[System]:
    """API, relay and payment consumer (`consumer`), or twins of them, in a lane of their own.

    Args:
        session: the test run.
        consumer: of the payment group, with more `env`, so many `replicas`.
        api: accepts orders.
        relay: publishes them.
        replicas: of the consumer.
        partitions: of the topic.
        dynamic: whether the consumers are dynamic members of their group; one that was killed is missed after 0.5 s.
        rebalanced: whether a newcomer joins the group, and leaves it, in each drill.
        topic_judged: whether an order may be in the topic only once. True as long as no relay dies or loses a mark.
        from_log: whether the relay is one that reads the log: there is a slot for it.
        own_servers: as for `Session.lane`. A static member that Kafka has expelled meanwhile may end, and is managed.
        workload: what is done in each drill.
        grace: as for `System`.
        env: more for the consumers.
        image: in whose containers the consumers are run; `consumer` is a command line then.
        room_mb: as for `Session.lane`.
    """
    with (
        session.lane(schema=SCHEMA, topics={"orders": partitions}, own_servers=own_servers, room_mb=room_mb) as lane,
        outbox_slot(lane) if from_log else contextlib.nullcontext(),
    ):
        psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
        common = {"NAMESPACE": "{lane}", "GATEWAY_URL": psp.url, "RELAY_NAME": "relay-{replica}", "SLOT": "{lane}"}
        passing = {"SESSION_TIMEOUT_MS": "500"}
        member = passing if dynamic else {"GROUP_INSTANCE_ID": "payment-{replica}"}
        workers = [
            Worker("api", api, http=True, env=common),
            Worker("relay", relay, env={**common, "RELAY": "cdc" if from_log else "polling"}),
            Worker("payment", consumer, replicas, env={**common, **member, **env}, managed=own_servers, image=image),
        ]
        published = slot_confirmed() if from_log else no_rows("outbox_pending")
        settled = [published, group_drained("{lane}.payment", "orders")]
        invariants = [one_effect_per_key(psp.ledger), nothing_lost(psp.ledger)]
        if rebalanced:
            lane.execute(newcomer.TABLE)
            workers.append(Worker("newcomer", newcomer.main, env={**common, **passing}))
            settled.append(no_rows("visits"))
        if topic_judged:
            told = {"TOPIC": "{topics[orders]}", "GROUP": "{lane}.topic"}
            topic = lane.trusted("topic", topic_ledger.main, ledger="topic.jsonl", key="order_id", env=told)
            settled.append(group_drained("{lane}.topic", "orders"))
            invariants.append(one_effect_per_key(topic.ledger))
        with System(
            lane,
            workers=workers,
            workload=workload or (place_orders_and_rebalance if rebalanced else place_orders),
            settled=settled,
            invariants=invariants,
            grace=grace,
        ) as system:
            yield system


def require_away_and_back(verdict: Verdict, server: str) -> None:
    """The verdict holds, and the server was lost once and is back."""
    verdict.require_holds()
    [spoiled] = [event for event in verdict.history if isinstance(event, Spoiled)]
    [healed] = [event for event in verdict.history if isinstance(event, Healed)]
    assert spoiled.links == healed.links == (server,)


@pytest.fixture(scope="session")
def orders(onecharge: Session) -> Iterator[System]:
    """The correct pipeline, kept for the whole run."""
    with thin_pipeline(onecharge) as system:
        yield system


@pytest.fixture
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane with the pipeline's database and topic and nothing running in it."""
    with onecharge.lane(schema=SCHEMA, topics={"orders": 4}) as lane:
        yield lane
