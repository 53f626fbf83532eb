"""The gauges of the pipeline, as Prometheus reads them, from a real Postgres and a real Kafka."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from prometheus_client.parser import text_string_to_metric_families

from pipeline.observe import look
from pipeline.observe.exporter import Source
from pipeline.observe.gauges import GAUGES, GROUPS, PREFIX
from pipeline.observe.kafka import Groups
from pipeline.observe.postgres import LATENCY
from pipeline.settings import Kafka
from tests.pipeline.workers import Start, free_port, place, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane
    from pipeline.observe.postgres import Reading

    Scrape = Callable[[], dict[str, dict[tuple[str, ...], float]]]

AGO = "update {} set {} = now() - interval '90 seconds'"
PARK = "insert into parked_orders values (%s, %s, 1, %s, 'why', now() - interval '90 seconds')"
PARK_EVENT = "insert into parked_events (consumer_group, order_id, event_id, origin) values (%s, %s, %s, '[]')"


@pytest.fixture
def empty(db: psycopg.Connection) -> psycopg.Connection:
    """Nothing is parked either."""
    db.execute("truncate parked_orders, parked_events, replays, relay_progress")
    return db


@pytest.fixture
def scrape(start: Start, lane: Lane, namespace: str, empty: psycopg.Connection) -> Scrape:  # noqa: ARG001
    """What is answered now: by name and labels."""
    env = {"DATABASE_URL": lane.postgres, "KAFKA_BOOTSTRAP_SERVERS": lane.kafka, "NAMESPACE": namespace}
    return scraping(start("observe", PORT=free_port(), **env).listening().ask)


def scraping(ask: Callable[[str, str], tuple[int, object, bytes]]) -> Scrape:
    """Asks so."""

    def scrape() -> dict[str, dict[tuple[str, ...], float]]:
        status, _, text = ask("GET", "/metrics")
        assert status == 200
        found: dict[str, dict[tuple[str, ...], float]] = {}
        for family in text_string_to_metric_families(text.decode()):
            for sample in family.samples:
                name = sample.name.removeprefix(PREFIX)
                labels = [sample.labels[label] for label in GAUGES[name].labels]
                found.setdefault(name, {})[*labels] = sample.value
        return found

    return scrape


def test_orders_and_outbox(scrape: Scrape, empty: psycopg.Connection) -> None:
    """How many orders have no outcome, how many events are not published, and since when."""
    assert scrape()["pending_orders"] == {(): 0}
    place(empty, 1, 2)
    place(empty, 1)
    empty.execute(AGO.format("orders", "created_at"))
    empty.execute(AGO.format("outbox", "created_at"))
    empty.execute("update outbox set published_at = now() where seq = 2")
    found = scrape()
    assert found["pending_orders"] == {(): 2}
    assert found["pending_oldest_seconds"][()] == pytest.approx(90, abs=5)
    assert found["unpublished_events"] == {(): 2}
    assert found["unpublished_oldest_seconds"][()] == pytest.approx(90, abs=5)
    assert "order_latency_seconds" not in found


def test_what_a_slot_has_published(scrape: Scrape, empty: psycopg.Connection) -> None:
    """With a relay that reads the log, what is behind its mark is not published, and its silence is the age.

    When its slot is gone another relay has taken over, and its mark only says what need not be published any more.
    """
    place(empty, 1)
    empty.execute(
        "insert into relay_progress (slot, below, at) values ('s', pg_current_xact_id(), now() - interval '90 s')"
    )
    place(empty, 1, 2)
    empty.execute("select pg_create_logical_replication_slot('s', 'pgoutput')")
    try:
        found = scrape()
    finally:
        empty.execute("select pg_drop_replication_slot('s')")
    assert found["unpublished_events"] == {(): 2}
    assert found["unpublished_oldest_seconds"][()] == pytest.approx(90, abs=5)
    found = scrape()
    assert found["unpublished_events"] == {(): 2}
    assert found["unpublished_oldest_seconds"][()] == pytest.approx(0, abs=5)


def test_latency(scrape: Scrape, empty: psycopg.Connection) -> None:
    """From an order to its outcome, of those that have just ended."""
    for age_s in (1, 2, 50):
        order_id = place(empty, 1)
        empty.execute(
            "update orders set created_at = now() - make_interval(secs => %s) where order_id = %s", [age_s, order_id]
        )
        empty.execute("update outbox set type = 'order.confirmed' where order_id = %s", [order_id])
    found = scrape()["order_latency_seconds"]
    assert [round(found[quantile,]) for quantile in ("0.5", "0.95", "1")] == [2, 50, 50]


def test_latency_is_read_by_indexes(empty: psycopg.Connection) -> None:
    """However many orders and events there are, and whatever statistics say, only those of the last minute are read."""
    empty.execute("""
        insert into orders (order_id, customer_id, sku, quantity, amount, currency)
        select number::text, 'c', 'mug', 1, 1, 'EUR' from generate_series(1, 20000) as number
    """)
    empty.execute("""
        insert into outbox (event_id, order_id, seq, type, payload, created_at)
        select gen_random_uuid(), number::text, 1, 'order.confirmed', '{}', now() - number * interval '10 ms'
        from generate_series(1, 20000) as number
    """)
    empty.execute("analyze orders, outbox")
    plan = "\n".join(line for (line,) in empty.execute(f"explain {LATENCY}"))
    assert "using outbox_outcomes" in plan
    assert "Seq Scan" not in plan


def test_what_fails_takes_nothing_else_away(scrape: Scrape, empty: psycopg.Connection, lane: Lane) -> None:
    """A query that takes too long, or that Postgres does not take, has no gauges; the others have, and it is said."""
    place(empty, 1)
    with psycopg.connect(lane.postgres) as locking:
        locking.execute("lock table outbox in access exclusive mode")
        found = until(lambda: (now := scrape()) and "parked_orders" in now and now)
    assert found["source_up"]["postgres",] == 0
    assert found["pending_orders"] == {(): 1}
    assert "unpublished_events" not in found
    empty.execute("alter table parked_orders rename to elsewhere")
    try:
        found = scrape()
    finally:
        empty.execute("alter table elsewhere rename to parked_orders")
    assert found["source_up"]["postgres",] == 0
    assert found["unpublished_events"] == {(): 1}
    assert "parked_orders" not in found
    assert scrape()["source_up"]["postgres",] == 1


def test_transactions_that_are_not_seen(start: Start, lane: Lane, namespace: str, empty: psycopg.Connection) -> None:
    """Who may not see others' sessions does not say that none is open: there is no such gauge, and that is trouble."""
    empty.execute("drop role if exists watchman; create role watchman login; grant pg_read_all_data to watchman")
    url = psycopg.conninfo.make_conninfo(str(lane.postgres), user="watchman")
    observe = start(
        "observe", PORT=free_port(), DATABASE_URL=url, KAFKA_BOOTSTRAP_SERVERS=lane.kafka, NAMESPACE=namespace
    )
    scrape = scraping(observe.listening().ask)
    try:
        found = scrape()
        assert found["source_up"]["postgres",] == 0
        assert "oldest_transaction_seconds" not in found
        assert "pending_orders" in found
        assert observe.said("run grant pg_monitor to watchman")
        empty.execute("grant pg_monitor to watchman")
        found = scrape()
        assert found["source_up"]["postgres",] == 1
        assert "oldest_transaction_seconds" in found
    finally:
        empty.execute("drop role watchman")


def test_a_transaction_that_hangs(scrape: Scrape, lane: Lane) -> None:
    """Whoever keeps a transaction open is seen, as is one that was prepared and forgotten."""
    with psycopg.connect(lane.postgres) as hanging:
        hanging.execute("select 1")
        until(lambda: scrape()["oldest_transaction_seconds"][()] > 0.2)
    until(lambda: scrape()["oldest_transaction_seconds"][()] < 0.2)
    with psycopg.connect(lane.postgres, autocommit=True) as forgotten:
        forgotten.execute("begin; create table forgotten (); prepare transaction 'forgotten'")
        try:
            until(lambda: scrape()["oldest_transaction_seconds"][()] > 0.2)
        finally:
            forgotten.execute("rollback prepared 'forgotten'")


def test_slots(scrape: Scrape, empty: psycopg.Connection) -> None:
    """What a slot keeps, and what Postgres says of it."""
    empty.execute("select pg_create_logical_replication_slot('watched', 'pgoutput')")
    try:
        found = scrape()
    finally:
        empty.execute("select pg_drop_replication_slot('watched')")
    assert found["slot_active"]["watched",] == 0
    assert found["slot_retained_bytes"]["watched",] >= 0
    said = {status: value for (slot, status), value in found["slot_status"].items() if slot == "watched"}
    assert said == {"reserved": 1, "extended": 0, "unreserved": 0, "lost": 0}
    assert "slot_left_ratio" not in found


def test_what_is_left_of_a_slot(scrape: Scrape, empty: psycopg.Connection) -> None:
    """Where Postgres keeps so much for a slot and no more, the part of it that is left is told."""
    empty.execute("select pg_create_logical_replication_slot('watched', 'pgoutput')")
    empty.execute("alter system set max_slot_wal_keep_size = '1GB'")
    empty.execute("select pg_reload_conf()")
    try:
        found = until(lambda: (now := scrape()) and "slot_left_ratio" in now and now)
    finally:
        empty.execute("alter system reset max_slot_wal_keep_size")
        empty.execute("select pg_reload_conf(), pg_drop_replication_slot('watched')")
    safe, retained = (found[f"slot_{name}_bytes"]["watched",] for name in ("safe", "retained"))
    assert found["slot_left_ratio"]["watched",] == pytest.approx(safe / (safe + retained))


def test_parking(scrape: Scrape, empty: psycopg.Connection, namespace: str) -> None:
    """What is tried again and what is given up are told apart; of who has parked nothing that is said."""
    group = f"{namespace}.payment"
    for order, due in (("a", "now"), ("b", None), ("c", None)):
        empty.execute(PARK, [group, order, due])
        empty.execute(PARK_EVENT, [group, order, uuid4()])
    found = scrape()
    none = dict.fromkeys(product(("inventory", "notification"), ("tried again", "given up")), 0)
    assert found["parked_orders"] == none | {("payment", "tried again"): 1, ("payment", "given up"): 2}
    assert found["parked_oldest_seconds"]["payment", "given up"] == pytest.approx(90, abs=5)
    assert found["parked_events"] == {("payment",): 3, ("inventory",): 0, ("notification",): 0}


def test_groups(scrape: Scrape, lane: Lane, namespace: str) -> None:
    """How far a group is behind, in events and in time, and that nobody is in it."""
    producer = Producer({"bootstrap.servers": lane.kafka})
    for number in range(5):
        old_ms = round(time.time() * 1000) - 1000 * (90 - number)
        producer.produce(f"{namespace}.orders", b"{}", partition=number % 2, timestamp=old_ms)
    producer.flush()
    found = scrape()
    assert found["consumer_lag_events"]["payment", "orders"] == 5
    assert found["consumer_lag_seconds"]["payment", "orders"] == pytest.approx(90, abs=5)
    assert found["consumer_members"] == {("payment",): 0, ("inventory",): 0, ("notification",): 0}
    group = {"bootstrap.servers": lane.kafka, "group.id": f"{namespace}.payment", "enable.auto.commit": False}
    member = Consumer(group)
    member.commit(
        offsets=[TopicPartition(f"{namespace}.orders", 0, 3), TopicPartition(f"{namespace}.orders", 1, 1)],
        asynchronous=False,
    )
    found = scrape()
    assert found["consumer_lag_events"]["payment", "orders"] == 1
    assert found["consumer_lag_seconds"]["payment", "orders"] == pytest.approx(87, abs=5)
    assert found["consumer_lag_events"]["inventory", "orders"] == 5
    member.commit(offsets=[TopicPartition(f"{namespace}.orders", 0, 7)], asynchronous=False)
    assert scrape()["consumer_lag_events"]["payment", "orders"] == -4
    member.close()


def test_what_is_handled_meanwhile(lane: Lane, namespace: str) -> None:
    """While the gauges are read events come and are committed; no group is behind the end for that."""
    assert lane.kafka is not None
    topic, client = f"{namespace}.orders", {"bootstrap.servers": lane.kafka, "log_level": 2}
    producer = Producer(client)
    member = Consumer(client | {"group.id": f"{namespace}.payment"})
    count = itertools.count(1)

    class Busy(Groups):
        def _offsets(self, *arguments: Any) -> dict[tuple[str, int], int]:
            found = super()._offsets(*arguments)
            producer.produce(topic, b"{}", partition=0)
            producer.flush()
            member.commit(offsets=[TopicPartition(topic, 0, next(count))], asynchronous=False)
            return found

    busy = Busy(Kafka(kafka_bootstrap_servers=lane.kafka, namespace=namespace))
    for _ in range(2):
        found = {(name, *labels): value for name, labels, value in busy.readings()}
        assert found["consumer_lag_events", "payment", "orders"] >= 0
        assert found["held_back_events", "orders"] == 0
    member.close()


def test_a_broker_that_is_not_the_coordinator() -> None:
    """One that says so, as after it hung, is asked again the next time; that must not end the process."""
    argv = [sys.executable, "-m", "tests.pipeline.no_coordinator"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout.split()) == (0, ["NOT_COORDINATOR", "{}"]), ended.stderr


def test_what_a_transaction_holds_back(scrape: Scrape, lane: Lane, namespace: str) -> None:
    """What no group is given while a transaction is open is told, and the groups are as late as that."""
    topic = f"{namespace}.orders"
    producer = Producer({"bootstrap.servers": lane.kafka, "transactional.id": namespace})
    producer.init_transactions()
    producer.begin_transaction()
    old_ms = round(time.time() * 1000) - 90_000
    for _ in range(3):
        producer.produce(topic, b"{}", partition=1, timestamp=old_ms)
    producer.flush()
    found = scrape()
    assert found["held_back_events"] == {("orders",): 3}
    assert found["held_back_seconds"]["orders",] == pytest.approx(90, abs=5)
    assert found["consumer_lag_events"]["payment", "orders"] == 0
    assert found["consumer_lag_seconds"]["payment", "orders"] == pytest.approx(90, abs=5)
    producer.abort_transaction()
    until(lambda: scrape()["held_back_events"] == {("orders",): 0})  # Kafka writes the end of it a moment later
    found = scrape()
    assert found["held_back_seconds"] == {("orders",): 0}
    assert found["consumer_lag_seconds"]["payment", "orders"] == 0


def test_topics(scrape: Scrape) -> None:
    """How many partitions a topic has; that there is no such topic is said."""
    retries = {(f"retry.{group}",): 0 for group in GROUPS}
    assert scrape()["topic_partitions"] == {("orders",): 2} | retries


def test_dead_letters(scrape: Scrape, empty: psycopg.Connection, lane: Lane, namespace: str) -> None:
    """Letters are counted by their origins; a letter waits unless it was sent back since, or left for good."""
    assert "dead_letters" not in scrape()
    topic = f"{namespace}.dead.payment"
    admin = AdminClient({"bootstrap.servers": lane.kafka})
    admin.create_topics([NewTopic(topic, 2, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": lane.kafka})

    def bury(offset: int, rounds: int = 0) -> None:
        origin = {"x-origin-topic": "orders", "x-origin-partition": "0", "x-origin-offset": str(offset)}
        headers: dict[str, str | bytes | None] = {**origin, "x-replays": str(rounds)}
        producer.produce(topic, b"letter", headers=headers)
        producer.flush()

    for offset in (1, 1, 2, 3):
        bury(offset)
    assert scrape()["dead_letters"] == {("payment",): 3}
    assert scrape()["dead_letters_waiting"] == {("payment",): 3}
    empty.execute(
        "insert into replays values ('payment', 'orders[0]@1', 1, 'sent'), ('payment', 'orders[0]@2', 1, 'left')"
    )
    assert scrape()["dead_letters_waiting"] == {("payment",): 1}
    bury(1, rounds=1)
    found = scrape()
    assert (found["dead_letters"]["payment",], found["dead_letters_waiting"]["payment",]) == (3, 2)
    producer.produce(topic, b"of nobody we know")
    producer.flush()
    assert scrape()["dead_letters_waiting"] == {("payment",): 3}


@pytest.mark.parametrize("header", ["x-replays", "x-origin-offset", "x-origin-partition"])
def test_a_letter_that_nobody_can_read(scrape: Scrape, lane: Lane, namespace: str, header: str) -> None:
    """A letter whose headers are not ours is one that waits, and takes no gauges away."""
    topic = f"{namespace}.dead.payment"
    admin = AdminClient({"bootstrap.servers": lane.kafka})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result()
    producer = Producer({"bootstrap.servers": lane.kafka})
    producer.produce(topic, b"letter", headers={header: b"\xff many"})
    producer.flush()
    found = scrape()
    assert found["source_up"]["dead letters",] == 1
    assert found["dead_letters_waiting"] == {("payment",): 1}


def test_what_nobody_has_foreseen(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a source raises, what it has answered is told, and that it is down; a traceback is logged once."""

    def read() -> Iterator[Reading]:
        yield "pending_orders", (), 1
        if wrong:
            raise ValueError("such a thing")

    source, wrong = Source("postgres", read), [True]
    for _ in range(2):
        told = source.told(source.ask(), time.monotonic() + 5)
        assert told == [("pending_orders", (), 1), ("source_up", ("postgres",), 0)]
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "ERROR"] == [True]
    assert "ValueError('such a thing')" in caplog.text
    wrong.clear()
    assert source.told(source.ask(), time.monotonic() + 5)[-1] == ("source_up", ("postgres",), 1)
    wrong.append(True)
    source.told(source.ask(), time.monotonic() + 5)
    assert len([record for record in caplog.records if record.levelname == "ERROR"]) == 2


@pytest.mark.parametrize("away", ["postgres", "kafka"])
def test_who_does_not_answer_has_no_gauges(start: Start, lane: Lane, namespace: str, away: str) -> None:
    """What is not known is absent, that it is not known is said, and the other source is not concerned."""
    nobody = f"127.0.0.1:{free_port()}"
    env = {
        "DATABASE_URL": f"postgresql://x@{nobody}/x" if away == "postgres" else lane.postgres,
        "KAFKA_BOOTSTRAP_SERVERS": nobody if away == "kafka" else lane.kafka,
    }
    found = scraping(start("observe", PORT=free_port(), NAMESPACE=namespace, **env).listening().ask)()
    other = "kafka" if away == "postgres" else "postgres"
    assert found["source_up"] == {(away,): 0, (other,): 1, ("dead letters",): 0}
    assert ("pending_orders" in found, "consumer_members" in found) == (away == "kafka", away == "postgres")


def test_every_gauge_is_declared(scrape: Scrape) -> None:
    """What is answered is declared, and the four signals are among it."""
    assert set(scrape()) <= {*GAUGES}
    assert {gauge.signal for gauge in GAUGES.values()} - {""} == {
        "consumer lag",
        "DLQ depth",
        "end-to-end latency",
        "slot lag",
    }


TOLD = """
pipeline_source_up{source="kafka"} 1
pipeline_pending_orders 3
pipeline_order_latency_seconds{quantile="0.95"} 2
pipeline_order_latency_seconds{quantile="1"} 4000
pipeline_parked_oldest_seconds{fate="given up",group="payment"} 4000
pipeline_parked_oldest_seconds{fate="tried again",group="payment"} 4
pipeline_slot_status{slot="s",status="reserved"} 1
pipeline_slot_status{slot="s",status="unreserved"} 0
pipeline_slot_status{slot="s",status="lost"} 0
pipeline_slot_left_ratio{slot="s"} 0.6
"""


@pytest.fixture
def gauges(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Answers so at GAUGES_URL."""

    class Handler(BaseHTTPRequestHandler):
        text = ""

        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.text.encode())

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01]).start()
        monkeypatch.setenv("GAUGES_URL", f"http://127.0.0.1:{server.server_port}/metrics")
        yield lambda text: setattr(Handler, "text", text)
        server.shutdown()


def ended(*arguments: str) -> object:
    """With which code `python -m pipeline gauges` ends."""
    with pytest.raises(SystemExit) as end:
        look.main(arguments)
    return end.value.code


@pytest.mark.parametrize(
    ("healthy", "trouble"),
    [
        ('seconds{quantile="0.95"} 2', 'seconds{quantile="0.95"} 11'),
        ('seconds{fate="tried again",group="payment"} 4', 'seconds{fate="tried again",group="payment"} 601'),
        ('status="unreserved"} 0', 'status="unreserved"} 1'),
        ('status="lost"} 0', 'status="lost"} 1'),
        ('left_ratio{slot="s"} 0.6', 'left_ratio{slot="s"} 0.4'),
        ('source_up{source="kafka"} 1', 'source_up{source="kafka"} 0'),
    ],
)
def test_trouble_is_what_fires(gauges: Callable[[str], None], healthy: str, trouble: str) -> None:
    """What no alert is about is no trouble, such as an order that was given up; what one is about is."""
    gauges(TOLD)
    assert ended() == 0
    gauges(TOLD.replace(healthy, trouble))
    assert ended() == 1


def test_a_gauge_of_tomorrow(gauges: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """What a newer observer tells besides is passed over, and the rest is shown."""
    gauges(TOLD + "pipeline_of_tomorrow 1\n")
    assert ended() == 0
    assert "pending orders" in capsys.readouterr().out


def test_each_name_has_a_gauge(gauges: Callable[[str], None], capsys: pytest.CaptureFixture[str]) -> None:
    """All is well only if there is something of everything that was asked for."""
    gauges(TOLD)
    assert ended("pending", "slot") == 0
    assert ended("pending", "dead_letters", "consumer") == 1
    assert "begins with dead_letters or consumer" in capsys.readouterr().err
    gauges("")
    assert ended() == 1
