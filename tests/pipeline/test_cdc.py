"""The CDC relay: nothing is confirmed that Kafka does not have."""

from __future__ import annotations

import json
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publish import cdc
from pipeline.publish.cdc import CdcRelay, Progress, Transaction
from pipeline.runtime import Unavailable
from pipeline.write.orders import EVENT
from tests.pipeline.slots import carried, carry_until, confirmed, end_of_log, messages, own_slot
from tests.pipeline.workers import Gate, place, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from chaos import Lane
    from pipeline.route.topics import Config
    from pipeline.settings import CdcSettings


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.randoms())
def test_what_may_be_confirmed(sizes: list[int], chance: Any) -> None:
    """Never a place behind a transaction that is not proven, nor one that did not end; in the end, the last one."""
    progress = Progress()
    transactions: list[Transaction] = []
    todo = [(number, what) for number, size in enumerate(sizes) for what in ["row"] * size + ["end"]]
    sent: list[Any] = []
    for number, what in todo:
        if number == len(transactions):
            transactions.append(progress.begin())
        if what == "end":
            transactions[number].end_lsn = 10 * (number + 1)
        else:
            transactions[number].unproven += 1
            sent.append(transactions[number])
        while sent and chance.random() < 0.4:
            sent.pop(chance.randrange(len(sent))).unproven -= 1
        progress.nothing_before(10 * (number + 1) + 5)
        confirmed = progress.advance()
        waiting = [one for one in transactions if one.unproven or not one.end_lsn]
        if waiting:
            assert confirmed <= 10 * transactions.index(waiting[0]) + 5
    for one in sent:
        one.unproven -= 1
    assert progress.advance() >= 10 * len(sizes)
    assert progress.idle


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a relay with a slot, a publication and a topic of its own."""
    with own_slot(db, lane, namespace) as settings:
        yield settings


@pytest.fixture
def relay(settings: CdcSettings) -> Iterator[CdcRelay]:
    """A relay, closed in the end."""
    relay = CdcRelay(settings)
    yield relay
    relay.close()


def on_topic(settings: CdcSettings) -> list[dict[str, Any]]:
    """Every event on the topic, with its key."""
    return [
        json.loads(message.value() or b"") | {"key": (message.key() or b"").decode()}
        for message in messages(settings, "orders")
    ]


def test_events_arrive_in_order(db: psycopg.Connection, settings: CdcSettings, relay: CdcRelay) -> None:
    """Each row becomes one message, keyed by its order, in sequence; what is confirmed does not come again."""
    a, b = place(db, 1, 2, 3), place(db, 1)
    carried(db, settings, relay)
    relay.restart()
    c = place(db, 1, 2)
    carried(db, settings, relay)
    events = on_topic(settings)
    assert {one["key"]: [two["seq"] for two in events if two["order_id"] == one["key"]] for one in events} == {
        a: [1, 2, 3],
        b: [1],
        c: [1, 2],
    }
    stored: dict[str, str] = dict(db.execute("select event_id::text, order_id from outbox").fetchall())
    assert {one["event_id"]: one["order_id"] for one in events} == stored


@pytest.mark.parametrize(("limit", "value"), [("AT_ONCE", 7), ("BYTES_AT_ONCE", 1_500)])
def test_a_backlog_is_carried_whole(  # noqa: PLR0917 - pytest passes by name
    db: psycopg.Connection,
    settings: CdcSettings,
    relay: CdcRelay,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
) -> None:
    """Nothing is dropped where one look at the slot ends and the next begins, in the midst of transactions or not."""
    monkeypatch.setattr(cdc, limit, value)
    orders = [place(db, *range(1, size)) for size in (2, 3, 7, 8, 9, 30)]
    with db.transaction():
        orders += [place(db, *range(1, 20)) for _ in range(3)]
    carried(db, settings, relay)
    sent = [(one["key"], one["seq"]) for one in on_topic(settings)]
    assert sorted(sent) == sorted(db.execute("select order_id, seq from outbox").fetchall())
    assert {key for key, _ in sent} == set(orders)


def test_what_was_not_confirmed_comes_again(
    db: psycopg.Connection, settings: CdcSettings, relay: CdcRelay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relay that ends between Kafka's answer and its own word to Postgres sends again, and loses nothing."""
    order = place(db, 1, 2)
    monkeypatch.setattr(relay, "is_proof", lambda _message: False)
    with pytest.raises(Unavailable, match="a delivery was concluded from the next one"):
        until(relay.carry)
    relay.close()
    again = CdcRelay(settings)
    try:
        until(lambda: not attempt(again))
        carried(db, settings, again)
    finally:
        again.close()
    assert [one["seq"] for one in on_topic(settings) if one["key"] == order] == [1, 2, 1, 2]


class Patient(CdcRelay):
    """Lets events wait for company, for a minute."""

    def config(self) -> Config:
        """The usual, but for the time."""
        return super().config() | {"linger.ms": 60_000, "message.timeout.ms": 120_000}


def test_when_nothing_more_is_there_it_is_sent(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Events wait for others only while the slot has others."""
    order = place(db, 1, 2)
    with closing(Patient(settings)) as relay:
        carried(db, settings, relay)
    assert [one["seq"] for one in on_topic(settings) if one["key"] == order] == [1, 2]


class Slow(Patient):
    """Hands nothing to Kafka for a minute."""

    def poll(self, seconds: float, *, at_once: bool = False) -> None:  # noqa: ARG002 - that is the point
        """Hear what Kafka has answered, and leave what waits for company."""
        super().poll(seconds)


def test_what_is_received_is_not_confirmed(db: psycopg.Connection, settings: CdcSettings) -> None:
    """What waits in the producer is not over for Postgres, whatever it is told meanwhile."""
    relay = Slow(settings)
    order = place(db, 1, 2)

    def taken() -> bool:
        relay.carry()
        return len(relay.producer) == 2

    until(taken)
    relay.due = 0.0
    relay.carry()  # it tells Postgres what it has of what came before
    relay.close()
    again = CdcRelay(settings)
    until(lambda: not attempt(again))
    carried(db, settings, again)
    again.close()
    assert [one["seq"] for one in on_topic(settings) if one["key"] == order] == [1, 2]


def attempt(relay: CdcRelay) -> str:
    """Why it is not ready."""
    try:
        relay.ready()
    except Unavailable as why:
        return str(why)
    return ""


def test_a_quiet_outbox_keeps_no_log(db: psycopg.Connection, settings: CdcSettings, relay: CdcRelay) -> None:
    """While other tables are written to, the slot moves on all the same."""
    place(db, 1)
    carried(db, settings, relay)
    db.execute("create table busy as select n, repeat('x', 500) from generate_series(1, 20000) n")
    carried(db, settings, relay)
    db.execute("drop table busy")


def test_kafka_is_away(db: psycopg.Connection, lane: Lane, settings: CdcSettings) -> None:
    """What Kafka does not take is not confirmed; it arrives, in order, when Kafka is back."""
    host, port = lane.kafka.split(":")
    gate = Gate(host, int(port))
    through = settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{gate.port}"})
    relay = CdcRelay(through)
    assert "Kafka at" in attempt(relay)
    before = confirmed(db, settings)
    order = place(db, 1, 2, 3)
    assert "Kafka at" in attempt(relay)
    assert confirmed(db, settings) == before
    gate.open()
    until(lambda: not attempt(relay))
    carried(db, settings, relay)
    relay.close()
    assert [one["seq"] for one in on_topic(settings) if one["key"] == order] == [1, 2, 3]


def test_nothing_overtakes_what_is_refused(db: psycopg.Connection, settings: CdcSettings, relay: CdcRelay) -> None:
    """An event that the producer does not take is behind everything that is on the topic."""
    order_id = place(db, 1)
    carried(db, settings, relay)
    event = {"order_id": order_id, "event_id": str(uuid4()), "seq": 2, "type": "order.placed", "traceparent": None}
    db.execute(EVENT, event | {"payload": json.dumps("x" * 2_000_000)})
    db.execute(EVENT, event | {"event_id": str(uuid4()), "seq": 3, "payload": "{}"})
    for _ in range(3):
        with pytest.raises(Unavailable, match="MSG_SIZE_TOO_LARGE"):
            carried(db, settings, relay)
        relay.restart()
    assert [event["seq"] for event in on_topic(settings)] == [1]


class Impatient(CdcRelay):
    """A relay whose messages are given up after some seconds."""

    def config(self) -> Config:
        """The usual, but for that."""
        return super().config() | {"message.timeout.ms": 4_000}


def test_nothing_overtakes_when_kafka_is_back(
    db: psycopg.Connection, lane: Lane, settings: CdcSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an event was given up in an outage, those behind it are not sent before it is sent again."""
    monkeypatch.setattr(cdc, "require_topic", lambda *_: None)
    host, port = lane.kafka.split(":")
    gate = Gate(host, int(port))
    relay = Impatient(settings.model_copy(update={"kafka_bootstrap_servers": f"127.0.0.1:{gate.port}"}))
    order_id = place(db, 1)
    began = time.monotonic()
    carry_until(relay, lambda: time.monotonic() > began + 3.5)
    event = {"order_id": order_id, "event_id": str(uuid4()), "seq": 2, "type": "order.placed", "traceparent": None}
    db.execute(EVENT, event | {"payload": json.dumps({"seq": 2, "order_id": order_id})})
    end = end_of_log(db)
    with pytest.raises(Unavailable, match="timed out"):
        carry_until(relay, lambda: False)
    gate.open()
    relay.restart()

    def everything() -> bool:
        try:
            relay.carry()
        except Unavailable:  # its patience is short for a new connection
            relay.restart()
        return confirmed(db, settings) >= end

    until(everything)
    relay.close()
    assert [event["seq"] for event in on_topic(settings)] == [1, 2]
