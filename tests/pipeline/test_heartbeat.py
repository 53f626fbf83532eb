"""What a relay that reads the log says of the outbox: never more is published than is, and that can be removed."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import psycopg
import pytest

from pipeline.publish.cdc import CdcRelay
from pipeline.publish.heartbeat import REMOVE
from pipeline.publish.outbox import Removal
from pipeline.publish.polling import Relay
from pipeline.runtime import Database
from pipeline.settings import RelaySettings
from tests.pipeline.slots import carried, carry_until, own_slot
from tests.pipeline.workers import place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane
    from pipeline.route.topics import Config
    from pipeline.settings import CdcSettings

PUBLISHED = "select order_id from outbox where xid < (select below from published_below) order by id"


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> Iterator[CdcSettings]:
    """For a relay with a slot of its own, whose heart beats fast."""
    db.execute("truncate relay_progress")
    with own_slot(db, lane, namespace) as settings:
        yield settings.model_copy(update={"heartbeat_s": 0.05})
    db.execute("truncate relay_progress")


def published(db: psycopg.Connection) -> list[str]:
    """The orders of which it is said that they are published."""
    return [order_id for (order_id,) in db.execute(PUBLISHED)]


def test_what_is_published_is_said(db: psycopg.Connection, settings: CdcSettings) -> None:
    """A while after its confirmation each row is known to be published."""
    orders = [place(db, 1), place(db, 1)]
    with closing(CdcRelay(settings)) as relay:
        carry_until(relay, lambda: published(db) == orders)


def test_what_is_under_way_is_not(lane: Lane, db: psycopg.Connection, settings: CdcSettings) -> None:
    """A transaction that began before others were published, and is still open, is not said to be, when it commits."""
    with closing(CdcRelay(settings)) as relay, psycopg.connect(lane.postgres) as late:
        late_order = place(late, 1)
        [(xid,)] = late.execute("select pg_current_xact_id()::text").fetchall()
        place(db, 1)
        carried(db, settings, relay)
        carry_until(relay, lambda: db.execute("select from relay_progress").fetchall())
        for _ in range(5):
            relay.carry()
        assert db.execute("select below <= %s::xid8 from relay_progress", [xid]).fetchall() == [(True,)]
        late.commit()
        assert late_order not in published(db)
        carry_until(relay, lambda: late_order in published(db))


class Deaf(CdcRelay):
    """A relay that does not hear Kafka's answers."""

    def config(self) -> Config:
        """The usual, but nothing is sent before the test is over."""
        return super().config() | {"linger.ms": 5_000}

    def poll(self, seconds: float, *, at_once: bool = False) -> None:  # noqa: ARG002 - that is the point
        """Hear what Kafka has answered, and leave what waits for company."""
        super().poll(seconds)


def test_what_is_not_proven_is_not(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Heartbeats behind a row that Kafka has not answered for say nothing."""
    place(db, 1)
    with closing(Deaf(settings)) as relay:
        carry_until(relay, lambda: relay._heartbeat._heard)
        for _ in range(20):
            relay.carry()
        assert relay._heartbeat._below is None
    assert db.execute("select from relay_progress").fetchall() == []


def test_published_rows_are_removed_when_they_are_old(db: psycopg.Connection, settings: CdcSettings) -> None:
    """Rows go when they are published and have been kept for so long; the younger ones stay."""
    old, young = place(db, 1, 2), place(db, 1)
    db.execute("update outbox set created_at = now() - interval '2 days' where order_id = %s", [old])
    with closing(CdcRelay(settings)) as relay:
        carry_until(relay, lambda: published(db) == [young])
        for _ in range(5):
            relay.carry()
    assert db.execute("select order_id from outbox").fetchall() == [(young,)]


def test_what_is_not_known_to_be_published_stays(db: psycopg.Connection, settings: CdcSettings) -> None:
    """However old a row is, it is removed only when a heartbeat has said that it is on the topic."""
    place(db, 1)
    with closing(CdcRelay(settings)) as relay:
        carry_until(relay, lambda: published(db))
    unknown = place(db, 1)
    db.execute("update outbox set created_at = now() - interval '2 days'")
    [(below,)] = db.execute("select below::text from published_below").fetchall()
    Removal(REMOVE).some(db, below, 60)
    assert db.execute("select order_id from outbox").fetchall() == [(unknown,)]


def test_another_servers_count_means_nothing(
    db: psycopg.Connection, lane: Lane, settings: CdcSettings, namespace: str
) -> None:
    """What a restored table says of transactions that another server has numbered marks no row."""
    place(db, 1)
    db.execute("insert into relay_progress (slot, below, server) values (%s, '1000000', 'another/1')", [settings.slot])
    told = RelaySettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace)
    with closing(Database(lane.postgres)) as database:
        polling = Relay(told, database)
        polling.ready()
        assert polling.publish() == 1
    with closing(CdcRelay(settings)) as relay:
        carry_until(relay, lambda: db.execute("select from published_below").fetchall())


@pytest.mark.parametrize(("prefix", "content"), [("outbox", "1"), ("onecharge.heartbeat", "a million")])
def test_others_messages_are_no_heartbeats(
    db: psycopg.Connection, settings: CdcSettings, prefix: str, content: str
) -> None:
    """What somebody else has put into the log, or into our mouth, is passed over."""
    with closing(CdcRelay(settings.model_copy(update={"heartbeat_s": 3600.0}))) as relay:
        db.execute("select pg_logical_emit_message(true, %s, %s)", [prefix, content])
        carried(db, settings, relay)
        relay.carry()
        assert relay._heartbeat._below is None


def test_a_polling_relay_takes_over(db: psycopg.Connection, lane: Lane, settings: CdcSettings, namespace: str) -> None:
    """It publishes what the log's reader has not, and nothing else."""
    place(db, 1)
    with closing(CdcRelay(settings)) as relay:
        carry_until(relay, lambda: published(db))
    place(db, 1, 2)
    told = RelaySettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace)
    database = Database(lane.postgres)
    polling = Relay(told, database)
    polling.ready()
    assert polling.publish() == 2
    polling.close()
    database.close()
