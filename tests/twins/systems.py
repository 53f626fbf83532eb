"""All seeded bugs: how to run each, how to run its correct brother, and where it has to be found."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from tests.fix_pipeline import thin_pipeline
from tests.fix_relays import relayed
from tests.twins import (
    async_commit,
    auto_commit,
    confirm_last_received,
    confirm_on_receipt,
    delete_before_produce,
    flush_without_reports,
    for_some_orders,
    implied_delivery,
    in_memory_dedupe,
    inbox_outside_transaction,
    mark_before_report,
    message_for_event,
    new_key_per_attempt,
    no_idempotence,
    no_inbox_no_key,
    offset_before_effect,
    reminder_in_memory,
    reminding,
    revoke_without_drain,
    skip_locked,
    swallowed_ambiguous_commit,
    threaded,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from chaos import System

    Make = Callable[..., AbstractContextManager[System]]  # of the session, and what else `thin_pipeline` takes

LOST = "nothing lost"
MISSING = "all events"
OVERTAKEN = "order per key"
DOUBLE = "one effect per key"


@dataclass(frozen=True)
class Twin:
    """A seeded bug. `system` and `brother` make the same system, with the bug and without.

    Each of the `schedules` fires in both, breaks `invariant` in the one, every time, and nothing in the other. So does
    a sweep of `only`, by `faults` where those that every sweep tries do not find it, or are more than a brother stands.
    """

    system: Make
    brother: Make
    invariant: str
    schedules: tuple[str, ...]
    only: tuple[str, ...] = ("payment",)
    faults: tuple[str, ...] | None = None


def payment_twin(main: Callable[[], object], invariant: str, *schedules: str) -> Twin:
    """A payment consumer in the plain pipeline."""
    return Twin(partial(thin_pipeline, consumer=main), thin_pipeline, invariant, schedules)


TWINS = {
    "offset_before_effect": payment_twin(
        offset_before_effect.main,
        LOST,
        "payment/kafka.offset_commit#1:crash-after",
        "payment/http.post#1:crash-before",
        "payment/http.post#1:crash-late",
    ),
    "no_inbox_no_key": payment_twin(
        no_inbox_no_key.main,
        DOUBLE,
        "payment/http.post#1:crash-after",
        "payment/postgres.commit#1:crash-after",
        "payment/kafka.offset_commit#1:crash-before",
    ),
    "new_key_per_attempt": payment_twin(
        new_key_per_attempt.main,
        DOUBLE,
        "payment/http.post#1:crash-after",
        "payment/http.post#1:lose-reply",
        "payment/postgres.commit#1:crash-before",
        "payment/postgres.commit#1:lose-request",
    ),
    "mark_before_report": Twin(
        partial(thin_pipeline, relay=mark_before_report.main),
        thin_pipeline,
        LOST,
        ("relay/kafka.produce#1:crash-late", "relay/kafka.produce#1:refuse=TOPIC_AUTHORIZATION_FAILED"),
        only=("relay",),
    ),
    "flush_without_reports": Twin(
        partial(thin_pipeline, relay=flush_without_reports.main),
        thin_pipeline,
        LOST,
        (
            "relay/kafka.produce#1:refuse=TOPIC_AUTHORIZATION_FAILED",
            "relay/kafka.produce#1:refuse=MESSAGE_TOO_LARGE",
        ),
        only=("relay/kafka.produce",),
        faults=("lose-reply", "refuse", "refuse=TOPIC_AUTHORIZATION_FAILED"),  # the last is no passing trouble
    ),
    "delete_before_produce": Twin(
        partial(relayed, relay=delete_before_produce.main),
        relayed,
        MISSING,
        ("relay/kafka.produce[key-1]#1:crash-before", "relay/kafka.produce[key-2]#1:crash-late=0.1"),
        only=("relay/kafka.produce",),
    ),
    "skip_locked": Twin(
        partial(relayed, relay=skip_locked.main, replicas=2),
        partial(relayed, replicas=2),
        OVERTAKEN,
        # The other relay may have just started. Where a producer's id is not there when it first asks, it asks again
        # after 500 ms, and what it has been given waits.
        ("relay/kafka.produce[key-1]#1:delay=1", "relay/kafka.produce[key-1]#1:hold=1"),
        only=("relay/kafka.produce",),
    ),
    "confirm_last_received": Twin(
        partial(relayed, relay=confirm_last_received.main, from_log=True),
        partial(relayed, relay=confirm_last_received.brother, from_log=True),
        MISSING,
        ("relay/kafka.produce[key-2]#1:crash-late=0.1",),
        only=("relay/kafka.produce",),
    ),
    "no_idempotence": Twin(
        partial(thin_pipeline, relay=no_idempotence.main, topic_judged=True),
        partial(thin_pipeline, topic_judged=True),
        DOUBLE,
        ("relay/kafka.produce#1:lose-reply",),
        only=("relay/kafka.produce",),
        faults=("lose-request", "lose-reply", "delay=0.05"),  # a relay that dies publishes again, and may
    ),
    "inbox_outside_transaction": payment_twin(
        inbox_outside_transaction.main,
        LOST,
        "payment/http.post#1:crash-before",
        "payment/http.post#1:crash-late",
        "payment/http.post#1:lose-request",
        "payment/http.post#1:refuse=503",
    ),
    "in_memory_dedupe": payment_twin(
        in_memory_dedupe.main,
        DOUBLE,
        "payment/http.post#1:crash-after",
        "payment/http.post#1:lose-reply",
        "payment/postgres.commit#1:crash-before",
        "payment/postgres.commit#1:crash-late",
        "payment/postgres.commit#1:crash-after",
        "payment/postgres.commit#1:lose-request",
        "payment/postgres.commit#1:lose-reply",
        "payment/postgres.commit#1:refuse=40001",
        "payment/kafka.offset_commit#1:crash-before",
        "payment/kafka.offset_commit#1:crash-late",
    ),
    "swallowed_ambiguous_commit": Twin(
        partial(thin_pipeline, api=swallowed_ambiguous_commit.main),
        thin_pipeline,
        LOST,
        ("api/postgres.commit#1:lose-request", "api/postgres.commit#1:refuse=40001"),
        only=("api",),
    ),
    "auto_commit": payment_twin(auto_commit.main, LOST, "payment/http.post#1:crash-late=2"),
    "async_commit": Twin(
        partial(thin_pipeline, consumer=async_commit.main),
        partial(thin_pipeline, consumer=threaded.main),
        LOST,
        ("payment/http.post#1:crash-late",),
    ),
    "revoke_without_drain": Twin(
        partial(thin_pipeline, consumer=revoke_without_drain.main, dynamic=True, rebalanced=True),
        partial(thin_pipeline, consumer=threaded.main, dynamic=True, rebalanced=True),
        LOST,
        ("payment/http.post#1:crash-late=2",),
        only=("payment/http.post",),
        faults=("crash-late=2", "lose-reply"),  # it takes a while until the group is rebalanced
    ),
}

TWO_FAULT_TWINS = {
    "message_for_event": Twin(
        partial(thin_pipeline, consumer=message_for_event.main),
        thin_pipeline,
        DOUBLE,
        (
            "relay/kafka.produce[key-1]#1:crash-after; payment/postgres.commit[key-1]#1:crash-after",
            "relay/kafka.produce[key-3]#1:crash-after; payment/kafka.offset_commit[key-3]#1:crash-before",
            "payment/postgres.commit[key-2]#1:lose-reply; relay/postgres.write[key-2]#1:crash-before",
            "payment/kafka.offset_commit[key-1]#1:crash-after; relay/postgres.write[key-1]#1:lose-request",
        ),
        only=("relay", "payment"),
    ),
    "reminder_in_memory": Twin(
        partial(thin_pipeline, api=reminder_in_memory.main, consumer=reminding.consume),
        partial(thin_pipeline, api=reminding.main, consumer=reminding.consume),
        LOST,
        (
            "payment/http.post[key-1]#1:crash-before; api/postgres.commit[key-2]#1:crash-before",
            "payment/http.post[key-1]#1:lose-request; api/postgres.commit[key-3]#1:crash-after",
            "payment/postgres.write[key-2]#1:crash-after; api/postgres.commit[key-3]#1:crash-before",
            "api/order.committed#3:crash-before; payment/http.post[key-2]#1:refuse",
        ),
        only=("api", "payment"),
    ),
}
"""Bugs that no single fault finds: each of the two in a schedule does no harm to the twin without the other."""

IMPLIED_DELIVERY = Twin(
    partial(thin_pipeline, relay=implied_delivery.main),
    partial(thin_pipeline, relay=implied_delivery.brother),
    LOST,
    ("relay~0/kafka.produce[key-1]#1:crash-late=0.1; relay~1/kafka.produce[key-1]#1:refuse",),
    only=("relay/kafka.produce",),
)
"""A bug that shows when a new producer's first message is refused, with others behind it."""

CONFIRM_ON_RECEIPT = Twin(
    partial(thin_pipeline, relay=confirm_on_receipt.main, from_log=True),
    partial(thin_pipeline, from_log=True),
    LOST,
    ("relay/kafka.produce[key-1]#1:crash-before", "relay/kafka.produce[key-1]#1:crash-late=0.1"),
    only=("relay/kafka.produce",),
)
"""A bug of the relay that reads the log."""

FOR_SOME_ORDERS = Twin(
    partial(thin_pipeline, consumer=for_some_orders.main),
    thin_pipeline,
    DOUBLE,
    (),  # none breaks it every time
    only=("relay", "payment"),
)
"""A bug that shows in 60 % of the runs."""
