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

from pipeline.publish.exactly_once import TAIL, ExactlyOnce, Place
from pipeline.route.topics import PROGRESS, producer_config, require_topic
from pipeline.runtime import Unavailable
from tests.pipeline.slots import carried, committed, own_slot
from tests.pipeline.workers import place, until

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from chaos import Lane
    from pipeline.settings import CdcSettings
    from tests.pipeline.workers import Start


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a relay with a slot, a publication and a topic of its own."""
    with own_slot(db, lane, namespace) as settings:
        producer = Producer(producer_config(settings))

        def there() -> bool:
            try:
                require_topic(producer, settings, PROGRESS)
            except Unavailable:  # it is being made
                return False
            return True

        until(there)
        yield settings


@given(st.lists(st.integers(1, 4), min_size=1, max_size=6), st.data())
def test_what_is_sent_again_is_passed_over(sizes: list[int], data: st.DataObject) -> None:
    """Whatever was committed, also a part of a transaction, each row that comes again is known, and no other."""
    log = [(100 * n + 50, 100 * n + 60, row) for n, size in enumerate(sizes) for row in range(1, size + 1)]
    seen = data.draw(st.integers(0, len(log)))
    place = Place()
    for number, (commit_lsn, end_lsn, row) in enumerate(log[:seen]):
        whole = number + 1 == len(log) or log[number + 1][0] != commit_lsn
        ended = whole and (number + 1 < seen or data.draw(st.booleans()))  # the end may not have been read yet
        place = Place(end_lsn) if ended else Place(place.end_lsn, commit_lsn, row)
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
        while len(committed(settings, PROGRESS)) < looks:
            relay.carry()
    assert 0 < len(committed(settings, "orders")) < 30
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
    events = [json.loads(value) for value in committed(settings, "orders")]
    assert Counter(event["event_id"] for event in events).most_common(1)[0][1] == 1
    assert len(events) == 30
    for _, order in itertools.groupby(sorted(events, key=lambda one: one["order_id"]), lambda one: one["order_id"]):
        assert [event["seq"] for event in order] == [1, 2, 3]


def test_a_predecessor_is_fenced(db: psycopg.Connection, settings: CdcSettings) -> None:
    """What a relay has sent and not committed when the next one begins is never seen, and it is told."""
    place(db, 1)
    first = ExactlyOnce(settings)
    first.ready()
    while not first.taken:
        first.look()
    first.close()  # as if Postgres had given the slot to another
    with closing(ExactlyOnce(settings)) as second:
        carried(db, settings, second)
    with pytest.raises(Unavailable, match=r"FENCED|INVALID_PRODUCER_EPOCH"):
        first.deliver()
    assert len(committed(settings, "orders")) == 1


def test_others_places_are_not_ours(db: psycopg.Connection, settings: CdcSettings) -> None:
    """The last word about our slot counts, however much was said about other slots since."""
    place(db, 1)
    with closing(ExactlyOnce(settings)) as relay:
        carried(db, settings, relay)
    producer = Producer(producer_config(settings))
    for _ in range(3 * TAIL):
        producer.produce(f"{settings.namespace}.{PROGRESS}", json.dumps(Place(1)), "another slot", partition=0)
    producer.flush()
    [said, *_] = committed(settings, PROGRESS)
    assert ExactlyOnce(settings).read_place() == Place(*json.loads(said))


def test_a_database_that_was_set_back_is_noticed(settings: CdcSettings) -> None:
    """Where Postgres has not come as far as Kafka says, nothing is passed over, and the error says what to do."""
    producer = Producer(producer_config(settings))
    producer.produce(f"{settings.namespace}.{PROGRESS}", json.dumps(Place(1 << 62)), settings.slot, partition=0)
    producer.flush()
    with (
        closing(ExactlyOnce(settings)) as relay,
        pytest.raises(Unavailable, match=r"it is another one, or was set back\. Make a slot of another name"),
    ):
        relay.ready()


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
    assert len(committed(settings, PROGRESS)) == int(exactly_once)
