"""What the wire says makes a verdict unknown where it has to: faults that could not be done, workers not seen."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

import pytest

from chaos import ChaosError, ProcessDied, System, UnknownName, Worker, one_effect_per_key
from chaos.waiting import Deadline, wait_until
from tests.chaos.wire import exact_workers, wire_workers
from tests.fix_pipeline import place, thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Run, Session
    from chaos.lane import Trusted


@pytest.fixture
def sly(onecharge: Session) -> Iterator[System]:
    """A worker that goes around the wire, and a workload that does the work itself."""
    with onecharge.lane() as lane:
        sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
        port = sink.url.rpartition(":")[2]
        with System(
            lane,
            workers=[Worker("sly", wire_workers.go_around, env={"REAL_PORT": port})],
            workload=lambda run: post(run, sink),
            settled=[],
            invariants=[one_effect_per_key(sink.ledger)],
            grace=0.1,
        ) as system:
            yield system


def post(run: Run, sink: Trusted) -> None:
    """Have one effect, when the worker has gone around."""
    wait_until("the worker to connect", run.lane.links.unseen, Deadline(10))
    key = run.new_key()
    with urllib.request.urlopen(sink.url, b'{"tag": "%s", "n": 1}' % key.encode()):  # noqa: S310 - our own
        run.accept(key)


def test_around_the_wire_is_unknown(sly: System) -> None:
    """A verdict on a worker that is connected to a server directly is unknown, and names both."""
    verdict = sly.drill()
    assert verdict.status == "unknown"
    assert "sly.0 is connected to 127.0.0.1:" in verdict.reasons[0]
    assert "around the wire" in verdict.reasons[0]


def test_fault_that_cannot_be_done_is_unknown(orders: System) -> None:
    """A fault that was reached and not carried out proves nothing, and says why; the order is charged all the same."""
    verdict = orders.drill("payment/postgres.commit#1:repeat")
    assert verdict.status == "unknown"
    [reason] = verdict.reasons
    assert "was reached and not carried out: postgres.commit cannot be repeated" in reason
    assert [verdict.effects(key) for key in verdict.keys] == [1, 1, 1]


def test_fault_of_the_wire_at_a_checkpoint_is_unknown(orders: System) -> None:
    """At a checkpoint there is no request to lose, and a schedule that asks for it is told so."""
    verdict = orders.drill("payment/payment.charged#1:lose-reply")
    assert verdict.status == "unknown"
    assert "only crash-before can be done" in verdict.reasons[0]


def test_point_that_is_not_reached_is_unknown(orders: System) -> None:
    """An effect that never came is said, with the points that were seen."""
    verdict = orders.drill("payment/kafka.produce#1:crash-before")
    assert verdict.status == "unknown"
    assert "payment/http.post" in verdict.reasons[0]


def test_point_by_key(onecharge: Session) -> None:
    """A point can be named by the key that its effect carries, whatever other effects there are before it."""

    def two_orders(run: Run) -> None:
        for customer in (run.new_key(), run.new_key()):
            place(run, customer_id=customer)

    with thin_pipeline(onecharge, workload=two_orders) as system:
        verdict = system.drill("relay/kafka.produce[key-2]#1:lose-reply")
        verdict.require_holds()
        assert [fired.fault for fired in verdict.fired] == ["relay~0/kafka.produce[key-2]#1:lose-reply"]


def test_unknown_fault(orders: System) -> None:
    """A fault that nobody registered is an error with the nearest name."""
    with pytest.raises(UnknownName, match="did you mean 'lose-reply'"):
        orders.drill("payment/http.post#1:lose-repyl")
    with pytest.raises(ChaosError, match="lose-reply=silent"):
        orders.drill("payment/http.post#1:lose-reply=quiet")


def test_wire_that_dies_in_a_drill(sly: System) -> None:
    """A drill without its wire is over at once, and is no success."""
    sly.lane.links.wire.process.kill()
    with pytest.raises(ProcessDied, match="wire"):
        sly.drill()
