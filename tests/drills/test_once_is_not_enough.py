"""Exactly once on the topic is not enough: people press twice, and the effect doubles unless there is an inbox.

The relay publishes with Kafka's transactions, so each event is on the topic once. One cannot be handled, and is buried;
when it can be, it is sent back, and somebody who is not sure sends it once more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from chaos import System, Worker, group_drained, no_rows
from chaos.errors import NotInTime
from chaos.waiting import Deadline, wait_until
from pipeline.publish import relay as relays
from pipeline.quarantine.replay import Replay, dead_letters
from pipeline.settings import Kafka, ReplaySettings
from tests.fix_groups import ORDER, one_row
from tests.fix_pipeline import SCHEMA
from tests.fix_returns import BREAK, FAILED, GIVEN_UP, MEND
from tests.fix_slot import outbox_slot, slot_confirmed
from tests.pipeline.slots import messages
from tests.twins import mendable, returning, row_ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, Session

pytestmark = pytest.mark.drills

PATIENCE_S = 10.0
TOPICS = {"orders": 1, "progress": 1, "retry.notification": 1, "dead.notification": 1}


def press_twice(run: Run) -> None:
    """Have an order fail whose customer cannot be written to, and send that back, twice, when he can be."""
    order_id, lane = run.new_key(), run.lane
    run.execute(BREAK, order_id)
    run.execute(ORDER, order_id, None)
    run.execute(FAILED, order_id)
    run.accept(order_id)

    def given_up() -> bool:
        return bool(run.execute(GIVEN_UP, order_id))

    with contextlib.suppress(NotInTime):
        wait_until("the event to be buried", given_up, Deadline(PATIENCE_S))
    run.execute(MEND, order_id)
    settings = ReplaySettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=lane.name)
    for _ in range(2):
        Replay(settings, "notification", 1000).send(dead_letters(settings, "notification"), again=True)


@contextlib.contextmanager
def mailing(session: Session, mails: Callable[[], object], retries: Callable[[], object]) -> Iterator[System]:
    """A relay with transactions, the notification group and its retry worker."""
    with session.lane(schema=SCHEMA, topics=TOPICS) as lane, outbox_slot(lane):
        lane.execute(mendable.TABLE)
        row_ledger.setup(lane, ["mails"])
        rows = lane.trusted(
            "rows", row_ledger.main, ledger="rows.jsonl", key="order_id", env={"SLOT": row_ledger.slot(lane)}
        ).ledger
        common = {"NAMESPACE": "{lane}", "RETRY_GROUP": "notification"}
        patience = {"RETRY_BUDGET": "5", "RETRY_PAUSE_S": "0.01", "RETRY_INTERVAL_S": "0.02"}
        with System(
            lane,
            workers=[
                Worker("relay", relays.main, env={**common, "RELAY": "cdc", "SLOT": "{lane}", "EXACTLY_ONCE": "1"}),
                Worker("notification", mails, env={**common, "GROUP_INSTANCE_ID": "notification"}),
                Worker("retry", retries, env={**common, **patience}),
            ],
            workload=press_twice,
            settled=[
                slot_confirmed(),
                group_drained("{lane}.notification", "orders"),
                group_drained("{lane}.notification", "retry.notification"),
                no_rows("parked_orders"),
                row_ledger.rows_recorded(["mails"]),
            ],
            invariants=[one_row(rows, "mails")],
            grace=1.0,
        ) as system:
            yield system


def test_an_inbox_is(onecharge: Session) -> None:
    """The mail is written once, however often its event is sent back."""
    with mailing(onecharge, mendable.mails, mendable.mails_retries) as system:
        system.drill().require_holds()
        assert sent_back(system) == 2


def test_without_it_the_effect_doubles(onecharge: Session) -> None:
    """Without an inbox there are two mails for one event, which was on the topic once."""
    with mailing(onecharge, returning.mails_twice, returning.mails_retries_twice) as system:
        verdict = system.drill()
        assert sent_back(system) == 2
    assert [violation.invariant for violation in verdict.violations] == ["one of mails"], verdict.story(events=True)


def sent_back(system: System) -> int:
    """How many letters are on the retry topic."""
    lane = system.lane
    return len(messages(Kafka(kafka_bootstrap_servers=lane.kafka, namespace=lane.name), "retry.notification"))
