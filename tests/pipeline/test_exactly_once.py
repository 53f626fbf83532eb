"""The CDC relay with Kafka's transactions: what is read as committed is there once, however often it is begun anew."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publish.exactly_once import ExactlyOnce, Place
from pipeline.route.topics import PROGRESS, producer_config, require_topic
from pipeline.runtime import Unavailable
from tests.pipeline.slots import carried, committed, own_slot
from tests.pipeline.workers import place, until

MORE = """
    insert into outbox (event_id, order_id, seq, type, payload)
    select gen_random_uuid(), order_id, n, 'more', payload
    from orders, (values (%s, %s::json), (%s, %s::json)) as event (n, payload)
"""

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from chaos import Lane
    from pipeline.settings import CdcSettings
    from tests.pipeline.workers import Start


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a relay with a slot, a publication and topics of its own."""
    with own_slot(db, lane, namespace) as settings:
        producer = Producer(producer_config(settings))

        def there() -> bool:
            try:
                require_topic(producer, settings, progress(settings), of=PROGRESS)
            except Unavailable:  # it is being made
                return False
            return True

        until(there)
        yield settings


def progress(settings: CdcSettings) -> str:
    """The topic on which it says how far it has come."""
    return f"{PROGRESS}.{settings.slot}"


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_what_is_sent_again_is_passed_over(sizes: list[int], data: st.DataObject) -> None:
    """Whatever was committed, also a part of a transaction, each row that comes again is known, and no other."""
    log = [(100 * n + 50, 100 * n + 60, row) for n, size in enumerate(sizes) for row in range(1, size + 1)]
    seen = data.draw(st.integers(0, len(log)))
    place = Place()
    for number, (commit_lsn, end_lsn, row) in enumerate(log[:seen]):
        whole = number + 1 == len(log) or log[number + 1][0] != commit_lsn
        ended = whole and (number + 1 < seen or data.draw(st.booleans()))  # the end may not have been read yet
        place = Place("", end_lsn) if ended else Place("", place.end_lsn, commit_lsn, row)
    assert [place.covers(commit_lsn, row) for commit_lsn, _, row in log] == [n < seen for n in range(len(log))]


@pytest.mark.parametrize("looks", [1, 2, 4])
def test_a_large_transaction_goes_on_where_it_was(
    db: psycopg.Connection, settings: CdcSettings, monkeypatch: pytest.MonkeyPatch, looks: int
) -> None:
    """A relay that dies within a transaction of Postgres's, after some of Kafka's, leaves the rest to the next one."""
    monkeypatch.setattr("pipeline.publish.cdc.AT_ONCE", 7)
    with db.transaction():
        for _ in range(10):
            place(db, 1, 2, 3)
    with closing(ExactlyOnce(settings)) as relay:
        while len(committed(settings, progress(settings))) < looks:
            relay.carry()
    assert 0 < len(committed(settings, "orders")) < 30
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
    events = [json.loads(value) for value in committed(settings, "orders")]
    assert Counter(event["event_id"] for event in events).most_common(1)[0][1] == 1
    assert len(events) == 30
    for _, order in itertools.groupby(sorted(events, key=lambda one: one["order_id"]), lambda one: one["order_id"]):
        assert [event["seq"] for event in order] == [1, 2, 3]


def test_a_slow_walsender_tears_no_transaction(db: psycopg.Connection, settings: CdcSettings) -> None:
    """What was committed together is taken together, though there is nothing at once behind each of its rows."""
    with closing(ExactlyOnce(settings)) as relay:
        relay.ready()
        receive, there = relay._reading.receive, itertools.cycle([False, True])
        relay._reading.receive = lambda wait_s: receive(wait_s) if wait_s or next(there) else None  # type: ignore[assignment, method-assign]
        with db.transaction():
            place(db, 1, 2, 3)

        def taken() -> bool:
            relay.look()
            return bool(relay.taken)

        until(taken)
        assert [json.loads(row.payload)["seq"] for row, _ in relay.taken] == [1, 2, 3]


def test_a_predecessor_is_fenced(db: psycopg.Connection, settings: CdcSettings) -> None:
    """What a relay has sent and not committed when the next one begins is never seen, and it is told."""
    first = ExactlyOnce(settings)
    first.ready()
    first.producer.begin_transaction()
    first.producer.produce(f"{settings.namespace}.orders", "of a zombie")
    first.producer.flush()
    first.close()  # as when Postgres has given the slot to another
    place(db, 1)
    with closing(ExactlyOnce(settings)) as second:
        carried(db, settings, second)
    with pytest.raises(Unavailable, match=r"FENCED|INVALID_PRODUCER_EPOCH"):
        first._in_kafka(first.producer.commit_transaction)
    assert len(committed(settings, "orders")) == 1


@pytest.mark.parametrize(
    "place", [Place("another/1", 1), Place("", 1 << 62)], ids=["another server", "one that was set back"]
)
def test_places_in_another_log_are_noticed(db: psycopg.Connection, settings: CdcSettings, place: Place) -> None:
    """Where the place was counted by another server, or by this one's future, nothing is passed over, ever."""
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
        told = place._replace(server=place.server or relay._reading.server)
    producer = Producer(producer_config(settings))
    producer.produce(f"{settings.namespace}.{progress(settings)}", json.dumps(told), settings.slot, partition=0)
    producer.flush()
    with closing(ExactlyOnce(settings)) as relay:
        for _ in range(2):  # and it is said again, not that the producer is in no state for it
            with pytest.raises(Unavailable, match=r"was read to \d+ of server .*Make a slot of another name"):
                relay.ready()


class Hopeful(ExactlyOnce):
    """A relay to which no report is a proof."""

    @staticmethod
    def is_proof(_message: object) -> bool:
        """None is."""
        return False


def test_what_is_not_proven_is_not_committed(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Where a report is no proof, neither event nor place is committed; the next relay has it on the topic."""
    place(db, 1)
    with closing(Hopeful(settings)) as relay, pytest.raises(Unavailable, match="concluded from the next one"):
        carried(db, settings, relay)
    assert committed(settings, "orders") == committed(settings, progress(settings)) == []
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
    assert len(committed(settings, "orders")) == 1


def test_what_is_refused_is_not_passed_over(db: psycopg.Connection, settings: CdcSettings) -> None:
    """An event that the producer does not take is never behind the place: it comes again, and nothing overtakes it."""
    place(db, 1)
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
        db.execute(MORE, [2, json.dumps("x" * 2_000_000), 3, "{}"])
        for _ in range(3):
            with pytest.raises(Unavailable, match="MSG_SIZE_TOO_LARGE"):
                carried(db, settings, relay)
            relay.restart()
    assert len(committed(settings, "orders")) == 1


@pytest.mark.parametrize("exactly_once", ["0", "1"])
def test_the_environment_says_which_relay(
    start: Start, db: psycopg.Connection, settings: CdcSettings, exactly_once: str
) -> None:
    """RELAY=cdc reads the log; with EXACTLY_ONCE it tells Kafka how far it has come."""
    env = {
        "RELAY": "cdc",
        "EXACTLY_ONCE": exactly_once,
        "DATABASE_URL": settings.database_url,
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "NAMESPACE": settings.namespace,
        "SLOT": settings.slot,
        "PUBLICATION": settings.publication,
    }
    relay = start("relay", **env)
    place(db, 1)
    until(lambda: committed(settings, "orders"))
    assert relay.ended() == 0
    assert len(committed(settings, progress(settings))) == int(exactly_once)
