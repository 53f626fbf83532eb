"""What the wire costs: a round trip, a bulk read, bulk produce; beside Toxiproxy, in the same run, in turns.

added_us                a round trip of SELECT 1 through the wire, less the same without it (medians; microseconds)
added_write_us          an autocommitted INSERT: with what it takes to know beforehand that it writes
added_commit_us         INSERT and COMMIT, likewise; two round trips
added_http_us           a POST with its reply, over a connection that is kept
toxiproxy_added_us      SELECT 1 through Toxiproxy, without toxics; _http_ for the POST
bulk_read_ratio         rows a second of one large SELECT, through the wire over direct
toxiproxy_read_ratio    the same through Toxiproxy
produce_ratio           messages a second of 100 bytes, through the wire over direct; a key is looked for in them all
toxiproxy_produce_ratio the same through Toxiproxy

Each figure is the median of several rounds in which the paths take turns, so that a noisy machine is noisy for all.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from confluent_kafka import Producer

from benchmarks.report import arguments, report
from chaos import Session
from chaos.services.ports import lease_port
from chaos.wire import messages
from tests.chaos.wire import exact_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane

ROUNDS = 5
CALLS = 1000
ROWS = 400_000
MESSAGES = 200_000
BODY = b'{"tag": "benchmark", "n": 1, "padding": "' + b"x" * 200 + b'"}'


def round_trip(call: Callable[[], object]) -> float:
    """The median time of a call, in microseconds."""
    times = []
    for _ in range(CALLS):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e6


def select(session: psycopg.Connection) -> float:
    """SELECT 1."""
    return round_trip(lambda: session.execute("SELECT 1").fetchone())


def insert(session: psycopg.Connection) -> float:
    """An autocommitted INSERT."""
    return round_trip(lambda: session.execute("INSERT INTO landed VALUES (%s, 1, 1)", ("b",)))


def transaction(session: psycopg.Connection) -> float:
    """BEGIN, INSERT, COMMIT."""

    def call() -> None:
        with session.transaction():
            session.execute("INSERT INTO landed VALUES (%s, 1, 1)", ("b",))

    return round_trip(call)


def post(address: str) -> float:
    """A POST over one connection."""
    connection = http.client.HTTPConnection(address)

    def call() -> None:
        connection.request("POST", "/", BODY)
        connection.getresponse().read()

    with contextlib.closing(connection):
        return round_trip(call)


def read(session: psycopg.Connection) -> float:
    """Rows a second of one large result."""
    began = time.perf_counter()
    rows = session.execute("SELECT n, 'some text of a row' FROM generate_series(1, %s) n", (ROWS,)).fetchall()
    return len(rows) / (time.perf_counter() - began)


def produce(bootstrap: str, topic: str) -> float:
    """Messages a second."""
    settings = {"bootstrap.servers": bootstrap, "linger.ms": 5, "queue.buffering.max.messages": MESSAGES + 1}
    producer = Producer(settings)
    producer.list_topics(topic)
    value = b"x" * 100
    began = time.perf_counter()
    for _ in range(MESSAGES):
        producer.produce(topic, value)
    producer.flush()
    return MESSAGES / (time.perf_counter() - began)


@contextlib.contextmanager
def paths(session: Session, lane: Lane) -> Iterator[dict[str, tuple[str, str, str]]]:
    """Postgres, Kafka and HTTP, each directly, through the wire and through Toxiproxy."""
    sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
    links, toxiproxy = lane.links, session.services.toxiproxy
    links.enlist("benchmark", "benchmark", 0)
    links.wire.do(lambda number: messages.Arm(number, ()))
    links.wire.do(lambda number: messages.Name(number, "7c9e6679f7424e0bb2b0d9f4a7f2a9c1", "key-1"))
    through = (links.postgres("benchmark"), links.kafka("benchmark"), links.translate("benchmark", sink.url))
    listener = session.services.kafka.spare[0]  # Toxiproxy has to stand at one too
    postgres, web = lease_port(), lease_port()
    address = lane.postgres.rpartition("@")[2].partition("/")[0]
    for name, listens, upstream in (
        ("postgres", postgres.address, address),
        ("kafka", listener.advertised.address, listener.listens.address),
        ("http", web.address, sink.url.removeprefix("http://")),
    ):
        toxiproxy.call("POST", "/proxies", {"name": name, "listen": listens, "upstream": upstream, "enabled": True})
    with contextlib.closing(postgres), contextlib.closing(web):
        yield {
            "direct": (lane.postgres, lane.kafka, sink.url.removeprefix("http://")),
            "wire": (through[0], through[1], through[2].removeprefix("http://")),
            "toxiproxy": (lane.postgres.replace(address, postgres.address), listener.advertised.address, web.address),
        }


def measure(session: Session) -> dict[str, float]:
    """All figures."""
    found: dict[str, dict[str, list[float]]] = {}
    with (
        session.lane(schema="CREATE TABLE landed (tag text, sender int, n int)", topics={"bulk": 1}) as lane,
        paths(session, lane) as all_paths,
        contextlib.ExitStack() as stack,
    ):
        topic = lane.topics["bulk"]
        sessions = {
            name: stack.enter_context(psycopg.connect(postgres, autocommit=True))
            for name, (postgres, _, _) in all_paths.items()
        }
        for _ in range(ROUNDS):
            for name, (_, bootstrap, address) in all_paths.items():
                figures = {
                    "select": select(sessions[name]),
                    "write": insert(sessions[name]),
                    "commit": transaction(sessions[name]),
                    "http": post(address),
                    "read": read(sessions[name]),
                    "produce": produce(bootstrap, topic),
                }
                for what, figure in figures.items():
                    found.setdefault(what, {}).setdefault(name, []).append(figure)
    return summary({what: {n: statistics.median(f) for n, f in by.items()} for what, by in found.items()})


def summary(medians: dict[str, dict[str, float]]) -> dict[str, float]:
    """The figures that are reported."""

    def added(what: str, path: str = "wire") -> float:
        return medians[what][path] - medians[what]["direct"]

    def ratio(what: str, path: str = "wire") -> float:
        return medians[what][path] / medians[what]["direct"]

    return {
        "added_us": added("select"),
        "added_write_us": added("write"),
        "added_commit_us": added("commit"),
        "added_http_us": added("http"),
        "toxiproxy_added_us": added("select", "toxiproxy"),
        "toxiproxy_added_http_us": added("http", "toxiproxy"),
        "bulk_read_ratio": ratio("read"),
        "toxiproxy_read_ratio": ratio("read", "toxiproxy"),
        "produce_ratio": ratio("produce"),
        "toxiproxy_produce_ratio": ratio("produce", "toxiproxy"),
        "direct_select_us": medians["select"]["direct"],
        "direct_rows_per_s": medians["read"]["direct"],
        "direct_messages_per_s": medians["produce"]["direct"],
    }


def main() -> None:
    """Measure and report."""
    options = arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="wire-") as directory, Session(Path(directory)) as session:
        report(measure(session), options.json)


if __name__ == "__main__":
    main()
