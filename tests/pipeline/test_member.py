"""The loop of the groups: effects once and in order, neighbours flow past what fails, and nothing is skipped."""

from __future__ import annotations

import json
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID, uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition
from hypothesis import example, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from psycopg.errors import DeadlockDetected

from pipeline.events import Confirmed, Event, Failed
from pipeline.process import member as members
from pipeline.process.member import Handler, Member
from pipeline.process.notification import Notification
from pipeline.process.retry import Retry
from pipeline.quarantine.replay import Replay, dead_letters
from pipeline.route.topics import producer_config
from pipeline.runtime import Stop, Unavailable
from pipeline.settings import GroupSettings, ReplaySettings, RetrySettings
from tests.pipeline.slots import committed, messages
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

    from chaos import Lane

BAD = "bad"


class Never(Stop):
    """Nobody asks this process to end."""

    def __init__(self) -> None:
        self.asked = False

    def wait(self, seconds: float, *_: object) -> None:
        """As it says."""
        time.sleep(seconds)


class Mails(Notification):
    """Writes a mail for each event, but cannot for some customers, nor for anybody while something is away."""

    away: ClassVar = False
    sizes: ClassVar[list[int]] = []

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """Write mails; the one that fails has changed something before it does."""
        self.sizes.append(len(events))
        super().effect(connection, events)
        if self.away:
            raise Unavailable("A server", "away")
        if BAD in {event.customer_id for event in events if isinstance(event, (Confirmed, Failed))}:
            raise ValueError(BAD)


@pytest.fixture
def settings(db: psycopg.Connection, lane: Lane, namespace: str) -> GroupSettings:
    """For a member of a group that is new."""
    db.execute("truncate parked_orders, parked_events, mails")
    Mails.away = False
    Mails.sizes.clear()
    return GroupSettings(
        database_url=lane.postgres,
        kafka_bootstrap_servers=lane.kafka,
        namespace=namespace,
        group_instance_id="member",
        session_timeout_ms=10_000,
    )


@contextmanager
def member(settings: GroupSettings) -> Iterator[Member]:
    """A member that has joined."""
    one = Member(settings, Mails(), Never())
    with closing(one._consumer) as consumer, closing(one._work.database):
        consumer.subscribe(one._topics)
        until(lambda: ready(one))
        yield one


def ready(one: Member) -> bool:
    """Whether all that it needs is there."""
    try:
        one._ready()
    except Unavailable:  # the topic is being made
        return False
    return True


def look(one: Member) -> int:
    """Have it take what is there; how much that was."""
    letters = one._next()
    one._receive(letters)
    return len(letters)


def outcome(order_id: str, seq: int, customer: str = "c-1", **more: Any) -> dict[str, Any]:
    """An event of the kind that the group handles."""
    event = {"event_id": str(uuid4()), "type": "order.failed", "order_id": order_id, "seq": seq}
    return {**event, "customer_id": customer, **more}


def send(settings: GroupSettings, *values: Mapping[str, Any] | bytes | None, topic: str = "orders") -> None:
    """Put these on the topic, keyed by order if they have one."""
    producer = Producer(producer_config(settings))
    for value in values:
        as_bytes = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        key = value["order_id"] if value is not None and not isinstance(value, bytes) else "k"
        producer.produce(f"{settings.namespace}.{topic}", as_bytes, key, headers=[("a", b"\xff"), ("x-kind", b"old")])
    producer.flush()


def mails(db: psycopg.Connection) -> list[tuple[str, str]]:
    """Order and event of each, in the order in which they were written."""
    return db.execute("select order_id, event_id::text from mails order by id").fetchall()


def parked(db: psycopg.Connection) -> dict[str, list[str]]:
    """The events that wait, by order."""
    return dict(
        db.execute("select order_id, array_agg(event_id::text order by place) from parked_events group by 1").fetchall()
    )


def test_what_is_there_is_handled_together(db: psycopg.Connection, settings: GroupSettings) -> None:
    """Once each, in the order of each order, in few transactions; and it does not come again to the next member."""
    events = [outcome(f"o-{n % 7}", 1 + n // 7) for n in range(300)]
    send(settings, *events, *events[:50])
    with member(settings) as one:
        until(lambda: look(one) == 0 and len(mails(db)) == 300)
    assert len(Mails.sizes) < 50
    assert sorted(mails(db)) == sorted((event["order_id"], event["event_id"]) for event in events)
    for order in {event["order_id"] for event in events}:
        assert [event_id for order_id, event_id in mails(db) if order_id == order] == [
            event["event_id"] for event in events if event["order_id"] == order
        ]
    with member(settings) as one:
        came: list[int] = []

        def assigned() -> bool:
            came.append(look(one))
            return bool(one._consumer.assignment())

        until(assigned)
        assert sum([*came, look(one), look(one), look(one)]) == 0


def test_neighbours_flow_past_what_fails(
    db: psycopg.Connection, settings: GroupSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fails is found in a batch, tried a few times, and parked with all that comes later for its order."""
    monkeypatch.setattr(members.Member, "patience_s", 60)  # a batch of a slow machine would have less
    events = [outcome(f"o-{n % 10}", 1 + n // 10, BAD if n in {23, 28} else "c-1") for n in range(100)]
    send(settings, *events)
    with member(settings) as one:
        until(lambda: look(one) == 0 and sum(map(len, parked(db).values())) == 16)
    done = {event["event_id"] for event in events if event["order_id"] not in {"o-3", "o-8"} or event["seq"] < 3}
    assert {event_id for _, event_id in mails(db)} == done
    assert len(mails(db)) == len(done) == 84
    assert parked(db) == {
        order: [event["event_id"] for event in events if event["order_id"] == order and event["seq"] >= 3]
        for order in ("o-3", "o-8")
    }
    rows = db.execute("select attempts, reason from parked_orders").fetchall()
    assert rows == [(4, "ValueError('bad')")] * 2


def test_what_waits_is_handled_in_its_order(db: psycopg.Connection, settings: GroupSettings) -> None:
    """A retry worker does what was parked, first things first, and then the order flows again."""
    send(settings, *(events := [outcome("o-1", n, BAD if n == 1 else "c-1") for n in (1, 2, 3)]))
    with member(settings) as one, retrying(settings, Mails()) as retry, retrying(settings, Notification()) as well:
        until(lambda: look(one) == 0 and sum(map(len, parked(db).values())) == 3)
        until(lambda: buried(settings, retry))
        assert parked(db) == {"o-1": [event["event_id"] for event in events]}  # the first one stays, as a mark
        assert mails(db) == []
        [letter] = messages(settings, "dead.notification")
        assert letter.value() == json.dumps(events[0]).encode()
        headers = dict(letter.headers() or [])
        assert headers["x-attempts"] == b"6"
        assert headers["x-exception"] == b"builtins.ValueError"
        assert not well.carry()
        told = ReplaySettings(**settings.model_dump(include={"database_url", "kafka_bootstrap_servers", "namespace"}))
        assert len(Replay(told, "notification", 1000).send(dead_letters(told, "notification"))) == 1

        def tried() -> bool:
            look(one)
            return well.carry()

        until(tried)
        until(lambda: not well.carry() and not parked(db))
        assert mails(db) == [("o-1", event["event_id"]) for event in events]
        assert db.execute("select from parked_orders").fetchall() == []
        send(settings, events[0], topic="retry.notification")
        send(settings, last := outcome("o-1", 4))
        until(lambda: look(one) == 0 and len(mails(db)) == 4)
        assert mails(db)[-1] == ("o-1", last["event_id"])


@contextmanager
def retrying(settings: GroupSettings, handler: Handler) -> Iterator[Retry]:
    """A retry worker that gives an event up after six attempts, four of which the member has made."""
    told = settings.model_dump(include={"database_url", "kafka_bootstrap_servers", "namespace"})
    retry = Retry(RetrySettings(retry_group="notification", retry_pause_s=0.01, retry_budget=6, **told), handler)
    with closing(retry._database):
        retry.ready()
        yield retry


class Busy(Notification):
    """Waits in vain for a row that somebody else has."""

    def effect(self, connection: psycopg.Connection, events: Sequence[Event]) -> None:
        """As when `lock_timeout` is over, or of two that wait for each other one is sent home."""
        super().effect(connection, events)
        raise DeadlockDetected


def test_a_retry_worker_spends_nothing_on_an_outage(db: psycopg.Connection, settings: GroupSettings) -> None:
    """Where Postgres or another server is away the attempt does not count, and changes nothing."""
    send(settings, outcome("o-1", 1, BAD))
    with member(settings) as one, retrying(settings, Mails()) as retry, retrying(settings, Busy()) as busy:
        until(lambda: look(one) == 0 and parked(db))
        db.execute("update parked_orders set next_attempt_at = now()")
        Mails.away = True
        for worker in (retry, busy):
            with pytest.raises(Unavailable):
                worker.carry()
        assert db.execute("select attempts, reason from parked_orders").fetchall() == [(4, "ValueError('bad')")]
        assert mails(db) == []
        Mails.away = False
        assert retry.carry()
        assert db.execute("select attempts from parked_orders").fetchall() == [(5,)]


def buried(settings: GroupSettings, retry: Retry) -> bool:
    """Whether there is a dead letter by now."""
    try:
        retry.carry()
    except Unavailable:  # its topic is being made
        return False
    return not retry.carry() and bool(committed(settings, "dead.notification"))


def test_what_nobody_can_read_is_buried(db: psycopg.Connection, settings: GroupSettings) -> None:
    """It is in the dead letters, with its bytes and its place, and what is behind it is done."""
    good = outcome("o-1", 1)
    wrong: list[Mapping[str, Any] | bytes | None] = [None, b"", b"\xff{", b"[]", outcome("o-2", 0), outcome("", 1)]
    send(settings, *wrong, good)
    with member(settings) as one:
        until(
            lambda: look(one) == 0 and mails(db) == [("o-1", good["event_id"])] and len(letters(settings)) == len(wrong)
        )
    raw = {value if value is None or isinstance(value, bytes) else json.dumps(value).encode() for value in wrong}
    found = letters(settings)
    assert {letter.value() for letter in found} == raw
    for letter in found:
        headers = letter.headers() or []
        assert headers[0] == ("a", b"\xff")
        assert [value for name, value in headers if name == "x-kind"] == [b"poison"]
        assert dict(headers)["x-origin-topic"] == f"{settings.namespace}.orders".encode()
        assert dict(headers)["x-exception"] == b"pipeline.events.Malformed"


def letters(settings: GroupSettings) -> list[Any]:
    """What is in the dead letters of the group; nothing if that topic is not there."""
    return messages(settings, "dead.notification")


def test_an_outage_spends_nobodys_budget(db: psycopg.Connection, settings: GroupSettings) -> None:
    """While a server is away nothing is parked, buried or skipped; when it is back everything is done once."""
    events = [outcome(f"o-{n % 5}", 1 + n // 5) for n in range(50)]
    Mails.away = True
    send(settings, *events)
    with member(settings) as one:
        until(lambda: look(one) and len(Mails.sizes) > 5)
        assert mails(db) == []
        Mails.away = False
        until(lambda: look(one) == 0 and len(mails(db)) == 50)
    assert parked(db) == {}
    assert len({event_id for _, event_id in mails(db)}) == 50


class Rebalanced:
    """A consumer of which so many seeks come to nothing, as a rebalance begins at that moment."""

    def __init__(self, consumer: Any, seeks: int) -> None:
        self._consumer, self._seeks = consumer, seeks

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)

    def seek(self, place: TopicPartition) -> None:
        """What librdkafka says then."""
        self._seeks -= 1
        if self._seeks >= 0:
            raise KafkaException(KafkaError(KafkaError._OUTDATED))
        self._consumer.seek(place)


@pytest.mark.parametrize(("seeks", "ends"), [(2, False), (100, True)])
def test_a_seek_that_comes_to_nothing(
    db: psycopg.Connection, settings: GroupSettings, seeks: int, *, ends: bool
) -> None:
    """It is made again; where it never works the member ends, rather than go on behind what it has not done."""
    send(settings, *(outcome("o-1", seq) for seq in (1, 2, 3)))
    with member(settings) as one:
        one._consumer = Rebalanced(one._consumer, seeks)  # type: ignore[assignment]
        Mails.away = True
        if ends:
            with pytest.raises(KafkaException, match="Outdated"):
                until(lambda: look(one))
            return
        until(lambda: look(one))
        Mails.away = False
        until(lambda: look(one) == 0 and len(mails(db)) == 3)


def test_other_kinds_are_none_of_its_business(db: psycopg.Connection, settings: GroupSettings) -> None:
    """What the group has no use for is passed over, and is in nobody's inbox."""
    send(settings, outcome("o-1", 1) | {"type": "order.placed"}, last := outcome("o-1", 2))
    with member(settings) as one:
        until(lambda: look(one) == 0 and len(mails(db)) == 1)
    assert mails(db) == [("o-1", last["event_id"])]
    assert db.execute("select count(*) from inbox").fetchone() == (1,)


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def patched(whole: bytes, patches: Sequence[tuple[int, bytes]]) -> bytes:
    """The bytes with others written over them, here and there."""
    for at, some in patches:
        whole = whole[:at] + some + whole[at + len(some) :]
    return whole


FIELDS = {
    "event_id": st.uuids().map(str),
    "type": st.sampled_from(["order.failed", "order.confirmed", "order.placed"]),
    "order_id": st.text(max_size=5) | st.sampled_from(["o-1", "o-2"]),
    "seq": st.integers(-1, 2**31),
    "customer_id": st.text(max_size=5),
}
WHOLE = st.fixed_dictionaries(FIELDS).map(json.dumps).map(str.encode)
PATCHES = st.lists(st.tuples(st.integers(0, 80), st.binary(min_size=1, max_size=2)), min_size=1, max_size=4)
MALFORMED = (
    st.fixed_dictionaries({}, optional={name: good | ODD for name, good in FIELDS.items()})
    .map(json.dumps)
    .map(str.encode)
    | st.builds(patched, WHOLE, PATCHES)
    | st.binary(max_size=40)
)


PASSED_OVER = {"event_id": str(UUID(int=1)), "type": "order.placed", "order_id": "o-1", "seq": 1, "?": 1}
NO_TEXT = json.dumps(PASSED_OVER).encode().replace(b"?", b"\x99")  # one of its names is none


def test_nothing_malformed_ends_a_member(db: psycopg.Connection, settings: GroupSettings) -> None:
    """Whatever is on the topic, each of it is done, passed over, parked or buried, and the last event is done."""
    odd: list[bytes] = []

    @hypothesis(max_examples=200, database=None)
    @example(NO_TEXT)
    @given(MALFORMED)
    def collect(one: bytes) -> None:
        odd.append(one)

    collect()
    assert len(odd) >= 200
    send(settings, *odd, outcome("last", 1))
    with member(settings) as one:
        until(lambda: look(one) == 0 and ("last" in {order_id for order_id, _ in mails(db)}))
    known = {letter.value() for letter in letters(settings)}
    rows = db.execute("select value from parked_events").fetchall()
    known |= {bytes(value) for (value,) in rows}
    # Nobody reads the names in what is passed over, so these need not be text.
    left = [json.loads(value.decode(errors="replace")) for value in odd if value not in known]
    done = {event_id for (event_id,) in db.execute("select event_id::text from inbox").fetchall()}
    handled = [one for one in left if one["type"] in {"order.confirmed", "order.failed"}]
    assert {str(UUID(one["event_id"])) for one in handled} <= done
    assert len(known) > 100
