"""Several polling relays share the outbox; a part of it never has two of them, and none for long."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from chaos.waiting import Deadline
from pipeline.publish.outbox import Row
from pipeline.publish.polling import Relay
from pipeline.publish.shards import NameTaken, Shards
from pipeline.runtime import Database
from pipeline.settings import RelaySettings
from tests.pipeline.workers import place, unpublished, until

if TYPE_CHECKING:
    import psycopg

    from chaos import Lane
    from tests.pipeline.workers import Start

ALL = set(range(16))
SHORT_S = 0.3


def settings(lane: Lane, name: str | None = None, lease_s: float = 15, namespace: str = "") -> RelaySettings:
    """For a relay."""
    return RelaySettings(
        database_url=lane.postgres,
        kafka_bootstrap_servers=lane.kafka,
        namespace=namespace,
        relay_name=name,
        relay_lease_s=lease_s,
    )


def led(db: psycopg.Connection, *relays: Shards) -> list[set[int]]:
    """What each of them leads by Postgres's word, after each has asked for its share."""
    for one in relays:
        one._due = 0.0
        one.lead(db)
    owned = db.execute("select owner, shard from outbox_shards").fetchall()
    return [{shard for owner, shard in owned if owner == one.name} for one in relays]


def expired(db: psycopg.Connection, relay: Shards) -> None:
    """Wait until its lease is over, by Postgres's clock."""
    over = "select from relays where name = %s and until < clock_timestamp()"
    until(lambda: db.execute(over, [relay.name]).fetchall())


def test_one_alone_leads_everything(lane: Lane, db: psycopg.Connection) -> None:
    """What nobody has is taken at once."""
    assert led(db, Shards(settings(lane))) == [ALL]


@pytest.mark.parametrize("count", [2, 3, 5, 16])
def test_shares_are_fair_and_whole(lane: Lane, db: psycopg.Connection, count: int) -> None:
    """However many there are, each shard has an owner, and nobody has more than a fair share, once all have asked."""
    relays = [Shards(settings(lane)) for _ in range(count)]
    led(db, *relays)
    shares = led(db, *relays)
    assert sorted(shard for share in shares for shard in share) == sorted(ALL)
    assert max(map(len, shares)) == -(-16 // count)


def test_nothing_is_taken_from_who_is_alive(lane: Lane, db: psycopg.Connection) -> None:
    """A newcomer has nothing until the owner itself gives something up, which it does between its rounds."""
    first, second = Shards(settings(lane)), Shards(settings(lane))
    assert led(db, first) == [ALL]
    assert led(db, second) == [set()]
    [kept] = led(db, first)
    assert len(kept) == 8
    assert led(db, second) == [ALL - kept]


def test_who_leaves_leaves_everything(lane: Lane, db: psycopg.Connection) -> None:
    """After an orderly end the others need not wait for the lease."""
    first, second = Shards(settings(lane)), Shards(settings(lane))
    led(db, first, second)
    first.leave(db)
    assert led(db, second) == [ALL]


def test_the_dead_are_missed_when_their_lease_is_over(lane: Lane, db: psycopg.Connection) -> None:
    """Until then what they had stays theirs."""
    led(db, Shards(settings(lane, lease_s=SHORT_S)))
    heir, began = Shards(settings(lane)), time.monotonic()
    assert led(db, heir) == [set()]
    until(lambda: led(db, heir) == [ALL])
    assert time.monotonic() - began > 0.8 * SHORT_S


def test_a_named_one_goes_on_where_it_was(lane: Lane, db: psycopg.Connection) -> None:
    """A new process with a name has the shards of the one before at once, and that one is told."""
    before, other = Shards(settings(lane, "a")), Shards(settings(lane, "b"))
    led(db, before, other)
    [share, _] = led(db, before, other)
    after = Shards(settings(lane, "a"))
    assert led(db, after) == [share]
    with pytest.raises(NameTaken, match="another process has started as relay 'a'"):
        led(db, before)
    assert led(db, after) == [share]


def test_a_lease_that_nobody_wanted_goes_on(lane: Lane, db: psycopg.Connection) -> None:
    """One that comes late has what it had, if nobody came meanwhile; what was taken it gets back as its share."""
    late = Shards(settings(lane, lease_s=SHORT_S))
    led(db, late)
    expired(db, late)
    assert led(db, late) == [ALL]
    expired(db, late)
    other = Shards(settings(lane))
    assert led(db, other) == [ALL]
    led(db, late, other)
    assert [len(share) for share in led(db, late, other)] == [8, 8]


def test_a_stale_owner_reads_and_marks_nothing(lane: Lane, db: psycopg.Connection) -> None:
    """When its lease is over, or another has its name, it sees no row, and its marks and removals have no effect."""
    order_id = place(db, 1)
    [(event_id,)] = db.execute("select event_id::text from outbox").fetchall()
    stale = Relay(settings(lane, "a", SHORT_S), Database(lane.postgres))
    led(db, stale._shards)
    assert [row.event_id for row in stale.claim(db)] == [event_id]
    expired(db, stale._shards)
    assert stale.claim(db) == []
    led(db, Shards(settings(lane, "a")))
    assert stale.claim(db) == []
    stale.mark(db, [Row(event_id, order_id, "order.placed", "{}", None, 1)])
    assert unpublished(db) == [(order_id, 1)]
    db.execute("update outbox set published_at = 'yesterday'")
    stale.remove(db)
    assert db.execute("select count(*) from outbox").fetchall() == [(1,)]


def test_who_shares_removes_no_slower(lane: Lane, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two relays each removes its part of what is oldest, without a rest while there is much."""
    monkeypatch.setattr("pipeline.publish.outbox.REMOVED", 16)
    for _ in range(40):
        place(db, 1)
    db.execute("update outbox set published_at = now() - interval '2 days'")
    relays = [Relay(settings(lane, name), Database(lane.postgres)) for name in "ab"]
    for _ in range(2):
        led(db, *(relay._shards for relay in relays))
    for _ in range(20):
        for relay in relays:
            relay.remove(db)
    assert db.execute("select count(*) from outbox").fetchall() == [(0,)]


def test_what_is_sent_is_settled_within_half_a_lease(lane: Lane) -> None:
    """Kafka cannot take, or refuse, a message when its shard may be somebody else's."""
    relay = Relay(settings(lane, lease_s=3), Database(lane.postgres))
    assert relay.config()["message.timeout.ms"] == 1_500


def test_the_others_take_over(start: Start, lane: Lane, db: psycopg.Connection, namespace: str) -> None:
    """Two processes share the work; when one is killed, the other does all of it."""
    env = {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}
    first, second = (start("relay", RELAY_LEASE_S=1, **env) for _ in range(2))
    first.said(r"Leading the shards \[[^]]{20,30}\]")
    second.said(r"Leading the shards \[[^]]{20,30}\]")
    for _ in range(32):
        place(db, 1, 2)
    until(lambda: not unpublished(db))
    first.process.kill()
    for _ in range(32):
        place(db, 1, 2)
    until(lambda: not unpublished(db))
    assert second.ended() == 0


def test_a_name_is_for_one(start: Start, lane: Lane, db: psycopg.Connection, namespace: str) -> None:  # noqa: ARG001 - empties the tables
    """A process whose name was taken ends and says what to do."""
    env = {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}
    first = start("relay", RELAY_NAME="a", RELAY_LEASE_S=0.5, RELAY_INTERVAL_S=0.05, **env)
    first.said("Leading")
    start("relay", RELAY_NAME="a", **env)
    assert first.said("another process has started as relay 'a': give each a RELAY_NAME of its own")
    assert first.process.wait(Deadline(20)).status == 1
