"""The notifier as a system that can be drilled."""

import contextlib
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from chaos import Lanes, Run, Session, System, Worker, group_drained, nothing_lost, one_effect_per_key

from notifier import service, worker

Make = Callable[[Session], AbstractContextManager[System]]


def notifier_of(run: Callable[[], None], count: int) -> Make:
    """What makes a system with this worker and so many events: one for a fixture, or as many as there are lanes."""

    @contextlib.contextmanager
    def make(session: Session) -> Iterator[System]:
        """Two workers, a topic of their own with a partition for each, and a text message service."""
        with session.lane(schema="notifier/schema.sql", topics={"events": 2}) as lane:
            sms = lane.trusted("sms", service.main, ledger="sms.jsonl", key="event")
            env = {
                "SMS_URL": sms.url,
                "TOPIC": "{topics[events]}",
                "GROUP": "{lane}.notifier",
                "INSTANCE": "{replica}",  # whoever takes a dead member's place has its partitions at once
                "SESSION_TIMEOUT_MS": "1000",
            }
            with System(
                lane,
                workers=[Worker("notifier", run, replicas=2, env=env)],
                workload=functools.partial(events, count),
                settled=[group_drained("{lane}.notifier", "events")],
                invariants=[one_effect_per_key(sms.ledger), nothing_lost(sms.ledger)],
                grace=0.3,
            ) as system:
                yield system

    return make


@pytest.fixture(scope="module", params=[(worker.main, 3)], ids=["three events"])
def notifier(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[System]:
    """One of these, which drills are carried out in one after the other."""
    with notifier_of(*request.param)(onecharge) as system:
        yield system


@pytest.fixture(scope="module", params=[(worker.main, 2)], ids=["two events"])
def notifiers(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[Lanes]:
    """Two of these side by side, on the same servers; what is explored has a new one after each that did not hold."""
    with onecharge.lanes(notifier_of(*request.param), 2) as lanes:
        yield lanes


def events(count: int, run: Run) -> None:
    """Have some orders change; the notifier answers for what it is told about them."""
    for number in range(count):
        event = run.new_key()
        run.accept(event)
        value = json.dumps({"event_id": event, "phone": f"+1555000{number}", "text": "Your order is on its way."})
        run.produce("events", value.encode(), key=event.encode())
