"""The order pipeline as a system under test, and lanes to try its parts in."""

from __future__ import annotations

import contextlib
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

import pipeline
from chaos import System, Worker, group_drained, no_rows, nothing_lost, one_effect_per_key
from pipeline.gateway import server as gateway
from pipeline.process import payment
from pipeline.publish import polling
from pipeline.write import api

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos import Lane, Run, Session

SCHEMA = Path(pipeline.__file__).with_name("schema.sql")


def place_orders(run: Run, count: int = 3) -> None:
    """Place orders over HTTP; what is accepted must be charged once."""
    for number in range(count):
        order = {"customer_id": f"customer-{number}", "amount": 1200 + number, "currency": "EUR"}
        run.accept(run.post("/orders", order)["order_id"])


@contextlib.contextmanager
def thin_pipeline(
    session: Session,
    consumer: Callable[[], object] | str = payment.main,
    *,
    workload: Callable[[Run], object] = place_orders,
    grace: float = 1.0,
    env: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[System]:
    """API, relay and payment consumer (`consumer`, or a twin of it, with more `env`) in a lane of their own."""
    with session.lane(schema=SCHEMA, topics={"orders": 1}) as lane:
        psp = lane.trusted("gateway", gateway.main, ledger="gateway.jsonl", key="order_id")
        common = {"NAMESPACE": "{lane}", "GATEWAY_URL": psp.url, "RELAY_INTERVAL_S": "0.005"}
        with System(
            lane,
            workers=[
                Worker("api", api.main, http=True, env=common),
                Worker("relay", polling.main, env=common),
                Worker("payment", consumer, env={**common, "GROUP_INSTANCE_ID": "payment-{replica}", **env}),
            ],
            workload=workload,
            settled=[no_rows("outbox_pending"), group_drained("{lane}.payment", "orders")],
            invariants=[one_effect_per_key(psp.ledger), nothing_lost(psp.ledger)],
            grace=grace,
        ) as system:
            yield system


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
