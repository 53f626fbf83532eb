"""When a system has nothing left to do, asked of the servers themselves.

Texts may contain the lane's placeholders (`chaos.lane`): ``group_drained("{lane}.payment", "orders")``.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.services.clients import confluent_kafka

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.lane import Lane


@dataclass(frozen=True)
class Condition:
    """`outstanding` says what is left to do in a lane, in a few words; an empty text means nothing."""

    name: str
    outstanding: Callable[[Lane], str]


_REFRESH_S = 1.0
# What a Kafka says that has just come back, or was away for a while: who leads or coordinates is changing.
PASSING = (
    "BROKER_NOT_AVAILABLE",
    "COORDINATOR_LOAD_IN_PROGRESS",
    "COORDINATOR_NOT_AVAILABLE",
    "FENCED_LEADER_EPOCH",
    "LEADER_NOT_AVAILABLE",
    "NOT_COORDINATOR",
    "NOT_LEADER_FOR_PARTITION",
    "OFFSET_NOT_AVAILABLE",
    "REQUEST_TIMED_OUT",
    "UNKNOWN_LEADER_EPOCH",
    "_NOENT",  # no leader is known
    "_TIMED_OUT",
    "_WAIT_COORD",
)


def no_rows(relation: str) -> Condition:
    """A table or view of the lane's database is empty."""

    def outstanding(lane: Lane) -> str:
        [(count,)] = lane.look(f"SELECT count(*) FROM {relation}")  # noqa: S608 - the drill's author names it
        return f"{relation} has {count} rows" if count else ""

    return Condition(f"no rows in {relation}", outstanding)


def _refresh(lane: Lane) -> None:
    """Have what asks go by what is so now: by itself it would go by the leaders that it knew, for ever."""
    kafka = confluent_kafka()
    with contextlib.suppress(kafka.KafkaException):
        if lane.kafka_admin.list_topics(timeout=_REFRESH_S).brokers:
            return
    lane.renew_kafka_clients()


def group_drained(group: str, topic: str) -> Condition:
    """A consumer group has committed the end of every partition of the lane's topic `topic` (its short name).

    Where producers use transactions, their ends have offsets too, and no reader is ever given them to commit: what
    counts is whether there is a message that a reader of what is committed would be given.
    """
    before: dict[int, int] = {}  # how far it was behind at the last look: who makes progress need not be asked about

    def outstanding(lane: Lane) -> str:
        nonlocal before
        kafka = confluent_kafka()
        partitions = lane.partitions(topic)
        latest = dict.fromkeys(partitions, kafka.admin.OffsetSpec.latest())
        answers = lane.kafka_admin.list_offsets(latest)
        try:
            ends = {partition.partition: end.result().offset for partition, end in answers.items()}
            committed = lane.committed(lane.fill(group), partitions)
        except kafka.KafkaException as error:
            told = error.args[0]
            if told.code() in {getattr(kafka.KafkaError, name) for name in PASSING}:
                _refresh(lane)
                return f"group {lane.fill(group)}: Kafka says {told.str()!r}"
            raise
        behind = {number: end - committed.get((lane.topics[topic], number), 0) for number, end in ends.items()}
        behind = {number: lag for number, lag in behind.items() if lag}
        same, before = behind == before, dict(behind)
        if same and behind:
            places = [
                kafka.TopicPartition(lane.topics[topic], number, ends[number] - behind[number]) for number in behind
            ]
            for number in lane.nothing_left(places, ends):
                del behind[number]
        lag = sum(behind.values())
        if not lag:
            return ""
        hint = "the partitions of a dynamic member that was killed wait for its session time-out"
        return f"group {lane.fill(group)} is {lag} messages behind ({hint})"

    return Condition(f"group {group} drained", outstanding)
