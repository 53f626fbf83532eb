"""When there is nothing left to do, as the servers say."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from chaos import Condition, Session, group_drained
from chaos.conditions import PASSING
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos import Lane

PATIENCE_S = 10.0
FROZEN_S = 2.0  # longer than the broker's session with the controller, which is 1 s
WATCHED_S = 2.0


@pytest.fixture
def lane(onecharge: Session) -> Iterator[Lane]:
    """A topic of one partition."""
    with onecharge.lane(topics={"t": 1}) as lane:
        yield lane


@pytest.fixture
def producer(lane: Lane) -> Any:
    """A producer with transactions."""
    producer = Producer({"bootstrap.servers": lane.kafka, "transactional.id": lane.name, "log_level": 0})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    return producer


def produce(lane: Lane, producer: Producer, count: int) -> None:
    """Put messages on the topic, in the transaction."""
    for _ in range(count):
        producer.produce(lane.topics["t"], b"x")
    producer.flush()


def commit(lane: Lane, offset: int) -> None:
    """Commit an offset as the group."""
    consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": f"{lane.name}.g"})
    consumer.commit(offsets=[TopicPartition(lane.topics["t"], 0, offset)], asynchronous=False)
    consumer.close()


def outstanding(lane: Lane) -> str:
    """What the condition says when it has looked often enough."""
    condition = group_drained("{lane}.g", "t")
    condition.outstanding(lane)
    return condition.outstanding(lane)


def wait_until_behind(lane: Lane, count: int) -> None:
    """Wait for the transaction's end, which the broker writes after it has said that the transaction is over."""
    wait_until(
        "the transaction's end",
        lambda: outstanding(lane),
        Deadline(PATIENCE_S),
        accept=lambda said: f" {count} messages behind" in said,
    )


def test_the_end_of_a_transaction_is_no_message(lane: Lane, producer: Producer) -> None:
    """A group that has committed every message is drained, though the transaction's end has an offset too."""
    produce(lane, producer, 2)
    producer.commit_transaction(PATIENCE_S)
    commit(lane, 1)
    wait_until_behind(lane, 2)
    commit(lane, 2)
    wait_until("it to be drained", lambda: not outstanding(lane), Deadline(PATIENCE_S))


def test_what_was_given_up_is_no_message(lane: Lane, producer: Producer) -> None:
    """Messages of a transaction that was aborted are given to nobody."""
    commit(lane, 0)
    produce(lane, producer, 2)
    producer.abort_transaction(PATIENCE_S)
    wait_until("it to be drained", lambda: not outstanding(lane), Deadline(PATIENCE_S))


def test_a_transaction_under_way_may_bring_messages(lane: Lane, producer: Producer) -> None:
    """Where one is open, nobody can say that there is nothing left."""
    commit(lane, 0)
    produce(lane, producer, 2)
    assert "2 messages behind" in outstanding(lane)
    producer.commit_transaction(PATIENCE_S)
    wait_until_behind(lane, 3)


def test_a_client_that_knows_no_broker_is_replaced(lane: Lane, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that was told that there is no broker, and has dropped the one there was, is not asked for ever."""

    class Lost:
        """As librdkafka's is then."""

        def list_offsets(self, asked: dict[TopicPartition, object]) -> dict[TopicPartition, Future[object]]:
            futures: dict[TopicPartition, Future[object]] = {one: Future() for one in asked}
            for future in futures.values():
                future.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE, "No leaders found")))
            return futures

        def list_topics(self, timeout: float) -> SimpleNamespace:
            assert timeout
            return SimpleNamespace(brokers={})

    lane.produce("t", b"x")
    monkeypatch.setitem(vars(lane._cluster), "admin", Lost())
    condition = group_drained("{lane}.g", "t")
    assert "Kafka says 'No leaders found'" in condition.outstanding(lane)
    assert " 1 messages behind" in condition.outstanding(lane)


def test_a_broker_comes_back(tmp_path: Path) -> None:
    """Behind a freeze a broker changes who coordinates groups: nobody is drained meanwhile, and nothing breaks.

    Where a client for administration is asked instead, this ends the process with a segmentation fault, every other
    time: what it takes is one answer within a few milliseconds.
    """
    with Session(tmp_path / "own") as session, session.lane(topics={"t": 1}) as lane, ThreadPoolExecutor(8) as pool:
        lane.produce("t", b"x")
        drained = group_drained("{lane}.g", "t")
        [broker] = [process for process in session.supervisor.processes if process.name == "kafka"]
        for _ in range(3):
            until = time.monotonic() + FROZEN_S + WATCHED_S
            asking = [pool.submit(ask, lane, f"{lane.name}.{number}", until) for number in range(7)]
            looking = pool.submit(look, drained, lane, until)
            os.kill(broker.pid, signal.SIGSTOP)
            time.sleep(FROZEN_S)
            os.kill(broker.pid, signal.SIGCONT)
            said = looking.result()
            assert any(" 1 messages behind" in one for one in said)
            assert all(" 1 messages behind" in one or "Kafka says" in one for one in said)
            assert not set[str]().union(*(one.result() for one in asking)) - set(PASSING)


def ask(lane: Lane, group: str, until: float) -> set[str]:
    """Ask again and again where a group stands; returns the names of what Kafka objects."""
    said = set()
    while time.monotonic() < until:
        try:
            assert lane.committed(group, lane.partitions("t")) == {}
        except KafkaException as why:
            said.add(why.args[0].name())
    return said


def look(condition: Condition, lane: Lane, until: float) -> set[str]:
    """Look again and again what is outstanding."""
    said = set()
    while time.monotonic() < until:
        said.add(condition.outstanding(lane))
    return said


def test_rows_of_no_columns_are_rows(onecharge: Session) -> None:
    """Whoever asks whether there is something, and for nothing of it, is told."""
    with onecharge.lane(schema="create table t (n int)") as lane:
        assert lane.look("select from t") == []
        assert lane.execute("insert into t values (1), (2)") == []
        assert lane.look("select from t") == [(), ()]
