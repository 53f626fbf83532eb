"""The gateway is silent for 20 s: nobody's budget is spent, nothing is a dead letter, all is done afterwards."""

from __future__ import annotations

import signal
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from pipeline.settings import Kafka
from tests.fix_groups import STOCK_UP
from tests.fix_pipeline import place
from tests.fix_shop import shop
from tests.pipeline.slots import messages
from tests.twins import payment_twins

if TYPE_CHECKING:
    from chaos import Run, Session, Verdict
    from tests.twins.systems import Make

pytestmark = pytest.mark.drills

SILENT_S, BEFORE, PER_S = 20.0, 20, 5
GIVE_UP = {"RETRY_BUDGET": "1", "RETRY_PAUSE_S": "0.01"}  # for who counts an outage as a failure


def orders_meanwhile(run: Run, silent_s: float) -> None:
    """Place some orders, stop the gateway over them, and place more until it goes on."""
    gateway = run.lane.services["gateway"].process
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, 1_000)
    for _ in range(BEFORE):
        place(run, sku=sku)
    gateway.signal(signal.SIGSTOP)
    try:
        began = time.monotonic()
        for number in range(int(silent_s * PER_S)):
            place(run, sku=sku)
            time.sleep(max(0.0, began + (number + 1) / PER_S - time.monotonic()))
    finally:
        gateway.signal(signal.SIGCONT)


def outage(make: Make, session: Session, silent_s: float) -> tuple[Verdict, list[Any], list[str]]:
    """What the drill says, the dead letters, and what the gateway was asked."""
    with make(session, workload=partial(orders_meanwhile, silent_s=silent_s), env=GIVE_UP) as system:
        verdict, lane = system.drill(), system.lane
        letters = messages(Kafka(kafka_bootstrap_servers=lane.kafka, namespace=lane.name), "dead.payment")
        requests = lane.services["gateway"].ledger.path.read_text(encoding="utf-8").splitlines()
    return verdict, letters, requests


def test_everything_is_done_afterwards(onecharge: Session) -> None:
    """Each order is charged once, none was parked, and the gateway was not beset meanwhile."""
    verdict, letters, requests = outage(shop, onecharge, SILENT_S)
    verdict.require_holds()
    assert letters == []
    [log] = [file for file in verdict.logs if "payment" in file.name and "retry" not in file.name]
    said = log.read_text(encoding="utf-8")
    assert "timed out'). Holding at this place" in said
    assert "is parked" not in said
    assert len(requests) < 2 * len(verdict.keys)


def test_an_outage_that_counts_as_a_failure_is_found(onecharge: Session) -> None:
    """A group that spends its events' budgets on an outage has dead letters."""
    main, retries = payment_twins.outage_for_a_failure, payment_twins.outage_for_a_failure_retries
    make = partial(shop, payment=main, payment_retries=retries, within=15.0)
    _, letters, _ = outage(make, onecharge, SILENT_S / 2)
    assert letters
