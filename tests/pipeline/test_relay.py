"""The polling relay: nothing is marked that Kafka does not have."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import psycopg
import pytest
from confluent_kafka import KafkaError

from pipeline.publish.outbox import Row
from pipeline.publish.polling import CLAIM, PER_SHARD, Relay, Reports, proven
from pipeline.runtime import Database, Unavailable
from pipeline.settings import RelaySettings
from tests.pipeline.slots import committed, messages
from tests.pipeline.workers import PAYLOAD, TRACEPARENT, place, unpublished, until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from chaos import Lane
    from tests.pipeline.workers import Start


def row(number: int, order_id: str, seq: int) -> Row:
    """A row of the outbox."""
    return Row(str(number), order_id, "order.placed", "{}", None, seq)


BATCH = [row(1, "a", 1), row(2, "b", 1), row(3, "a", 2), row(4, "b", 2), row(5, "a", 3)]


@pytest.mark.parametrize(
    ("delivered", "marked"),
    [
        ({1, 2, 3, 4, 5}, [1, 2, 3, 4, 5]),
        (set(), []),
        ({2, 3, 4, 5}, [2, 4]),
        ({1, 2, 4, 5}, [1, 2, 4]),
        ({1, 2, 3, 5}, [1, 2, 3, 5]),
        ({1, 2, 3, 4}, [1, 2, 3, 4]),
    ],
)
def test_an_order_is_marked_up_to_its_first_failure(delivered: set[int], marked: list[int]) -> None:
    """Of each order the rows before its first undelivered one are proven; other orders are not held back by it."""
    assert [int(row.event_id) for row in proven(BATCH, {str(number) for number in delivered})] == marked


@pytest.fixture
def settings(lane: Lane, namespace: str) -> RelaySettings:
    """For a relay to a topic of its own."""
    return RelaySettings(
        database_url=lane.postgres,
        kafka_bootstrap_servers=lane.kafka,
        namespace=namespace,
        relay_name="relay",
        outbox_keep_s=60,
    )


@pytest.fixture
def database(lane: Lane) -> Iterator[Database]:
    """A relay's connection, closed in the end so that its lock is free."""
    database = Database(lane.postgres)
    yield database
    database.close()


def test_events_arrive_in_order(db: psycopg.Connection, settings: RelaySettings, database: Database) -> None:
    """Each row becomes one message, keyed by its order, in sequence, and is then marked."""
    a, b = place(db, 1, 2, 3), place(db, 1)
    assert Relay(settings, database).publish() == 4
    assert unpublished(db) == []
    got = messages(settings, "orders")
    values = [json.loads(message.value() or b"") for message in got]
    assert [value["seq"] for value in values if value["order_id"] == a] == [1, 2, 3]
    assert [value["seq"] for value in values if value["order_id"] == b] == [1]
    for message, value in zip(got, values, strict=True):
        assert message.key() == value["order_id"].encode()
        assert message.headers() == [
            ("event_id", value["event_id"].encode()),
            ("type", b"order.placed"),
            ("traceparent", TRACEPARENT.encode()),
        ]
        assert value == PAYLOAD | {k: value[k] for k in ("event_id", "order_id", "seq")} | {"type": "order.placed"}


class HalfDeaf(Relay):
    """A relay whose broker confirms all but the second event of each order."""

    def send(self, batch: Iterable[Row]) -> Reports:
        """The reports as such a broker makes them."""
        return Reports({row.event_id for row in batch if row.seq != 2}, KafkaError(KafkaError._MSG_TIMED_OUT))


def test_only_proven_rows_are_marked(db: psycopg.Connection, settings: RelaySettings, database: Database) -> None:
    """What Kafka did not confirm stays in the outbox together with its followers, and the relay says why."""
    a, b = place(db, 1, 2, 3), place(db, 1)
    with pytest.raises(Unavailable, match=r"took 3 of 4 events: .*timed out"):
        HalfDeaf(settings, database).publish()
    assert unpublished(db) == [(a, 2), (a, 3)]
    assert b not in dict(unpublished(db))


def scans(plan: dict[str, Any], table: str) -> Iterator[dict[str, Any]]:
    """The parts of a plan that read this table."""
    if plan.get("Relation Name") == table:
        yield plan
    for part in plan.get("Plans", ()):
        yield from scans(part, table)


def test_a_round_reads_what_it_takes(settings: RelaySettings, database: Database) -> None:
    """Of a backlog that nobody has counted yet, a round reads its own part, or a long one would take for ever."""
    Relay(settings, database).publish()
    with database.connection() as connection, connection.transaction(force_rollback=True):
        connection.execute("truncate outbox, orders cascade")  # what was known of how many rows there are is forgotten
        connection.execute("insert into orders values ('o', 'c', 'sku-1', 1, 1, 'EUR')")
        connection.execute(
            "insert into outbox (event_id, order_id, seq, type, payload) "
            "select gen_random_uuid(), 'o', n, 'order.placed', to_json(repeat('-', 1700)) "
            "from generate_series(1, 20000) as n"
        )
        [relay] = connection.execute("select name, token from relays").fetchall()
        [[[explained]]] = connection.execute(f"explain (analyze, format json) {CLAIM}", [PER_SHARD, *relay]).fetchall()
    read = [scan["Actual Rows"] * scan["Actual Loops"] for scan in scans(explained["Plan"], "outbox")]
    assert read == [PER_SHARD]


def test_a_row_that_commits_late_is_not_skipped(
    lane: Lane, db: psycopg.Connection, settings: RelaySettings, database: Database
) -> None:
    """A row with a low id that becomes visible after a higher one was published is published too."""
    relay = Relay(settings, database)
    with psycopg.connect(lane.postgres) as late:
        place(late, 1)
        place(db, 1)
        assert relay.publish() == 1
    assert relay.publish() == 1
    assert unpublished(db) == []


def test_nothing_overtakes_what_is_refused(db: psycopg.Connection, settings: RelaySettings, database: Database) -> None:
    """An event that the producer does not take holds back its order's next one, and no other order's."""
    order_id = place(db, 1, 2)
    db.execute("update outbox set payload = to_json(repeat('x', 2000000)) where seq = 1")
    other = place(db, 1)
    relay = Relay(settings, database)
    for _ in range(3):
        with contextlib.suppress(Unavailable):
            relay.publish()
    assert unpublished(db) == [(order_id, 1), (order_id, 2)]
    assert [json.loads(value)["order_id"] for value in committed(settings, "orders")] == [other]


def test_a_row_is_published_as_soon_as_it_is_committed(
    start: Start, lane: Lane, db: psycopg.Connection, namespace: str
) -> None:
    """Postgres wakes a relay that would not look for an hour, however long it has had nothing to do."""
    env = {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}
    relay = start("relay", RELAY_INTERVAL_S=3600, **env)
    for _ in range(3):
        place(db, 1)
        until(lambda: not unpublished(db))
    assert relay.ended() == 0


def test_without_a_word_it_looks_by_itself(start: Start, lane: Lane, db: psycopg.Connection, namespace: str) -> None:
    """A row of which nobody was told is published after the interval."""
    env = {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}
    start("relay", RELAY_INTERVAL_S=0.05, **env).said("Leading")
    db.execute("set session_replication_role = replica")  # no trigger fires
    place(db, 1)
    until(lambda: not unpublished(db))


@pytest.mark.parametrize("lease", ["", "-1 s", "1 minute"], ids=["none", "dead", "alive"])
def test_a_quiet_database_is_told_of_nothing(lane: Lane, db: psycopg.Connection, lease: str) -> None:
    """Where no relay polls, or none that is alive, no insert notifies: its COMMIT would wait for every other."""
    if lease:
        db.execute("insert into relays values ('a', gen_random_uuid(), now() + %s::interval)", [lease])
    with psycopg.connect(lane.postgres, autocommit=True) as listener:
        listener.execute("listen outbox")
        place(db, 1)
        assert bool(list(listener.notifies(timeout=0.2))) == (lease == "1 minute")


class Idle(Relay):
    """A relay that publishes nothing, and does the rest of a round."""

    def claim(self, _connection: psycopg.Connection) -> list[Row]:
        """Nothing."""
        return []


def test_what_was_published_long_ago_is_removed(
    db: psycopg.Connection, settings: RelaySettings, database: Database
) -> None:
    """Rows go when they have been published for so long; the younger and the unpublished stay."""
    a = place(db, 1, 2)
    assert Relay(settings, database).publish() == 2
    db.execute("update outbox set published_at = now() - interval '61 s' where seq = 1")
    b = place(db, 1)
    Idle(settings, database).publish()
    assert db.execute("select order_id, seq from outbox order by id").fetchall() == [(a, 2), (b, 1)]


def test_a_long_past_is_removed_at_once(db: psycopg.Connection, settings: RelaySettings, database: Database) -> None:
    """What does not go in one batch goes in the next rounds, without a rest."""
    place(db, *range(1, 11))
    db.execute("update outbox set published_at = 'yesterday'")
    relay = Idle(settings, database)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.publish.outbox.REMOVED", 4)
        left = []
        for _ in range(4):
            relay.publish()
            left += db.execute("select count(*) from outbox").fetchall()
    assert left == [(6,), (2,), (0,), (0,)]
