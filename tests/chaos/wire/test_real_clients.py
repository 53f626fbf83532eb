"""Real clients in four languages do their scripts through the wire, which names their effects and changes nothing."""

from __future__ import annotations

import itertools
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    KafkaError,
    TopicPartition,
)

from chaos.wire.messages import Answered, Closed, Name, Noted, Opened, Seen
from tests.chaos.wire.clients.expected import EXPECTED, KEYED
from tests.chaos.wire.real_clients import CLIENTS, run_client
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from chaos import Lane, Session


class Service(ThreadingHTTPServer):
    """An HTTP service that records what it is asked, and how many connections it was asked on."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, str, dict[str, str]]] = []  # method, path, transfer encoding, body
        self.connections: set[Any] = set()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Service

    def _answer(self) -> None:
        encoding = self.headers.get("Transfer-Encoding", "")
        data = b"".join(self._chunks()) if encoding else self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.asked.append((self.command, self.path, encoding, json.loads(data or b"{}")))
        self.server.connections.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - the base class's names

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline(), 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def log_message(self, format: str, *_: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.mark.parametrize("name", CLIENTS)
def test_script(onecharge: Session, name: str) -> None:
    """The wire names each effect of each program, finds its key, and the servers hold exactly what they should."""
    services = {effect.site.partition(".")[0] for effect in EXPECTED[name]}
    schema = "CREATE TABLE effects (key text, note text)" if "postgres" in services else None
    topics = {"t": 1} if "kafka" in services else None
    with onecharge.lane(schema=schema, topics=topics) as lane, Service() as service:
        key, group = str(uuid.uuid4()), f"{lane.name}.group"
        links, rig = lane.links, Rig(lane)
        links.add_service(service.url)
        links.enlist("client", "client", 0)
        rig.arm("")
        rig.wire.do(lambda number: Name(number, key, "key"))
        env = {"KEY": key}
        env |= {"DATABASE_URL": links.postgres("client")} if schema else {}
        env |= {"KAFKA_BOOTSTRAP_SERVERS": links.kafka("client"), "TOPIC": lane.topics["t"]} if topics else {}
        env |= {"GROUP": group} if topics else {}
        env |= {"HTTP_URL": links.translate("client", service.url)} if "http" in services else {}
        ended = run_client(name, env, onecharge.supervisor)
        assert ended.returncode == 0, ended.stdout
        rig.wait("all connections to close", lambda: len(rig.all(Closed)) == len(rig.all(Opened)))
        check_effects(rig, name)
        if schema:
            check_rows(lane, name, key)
        if topics:
            check_messages(lane, name, key)
            check_groups(lane, name, group)
        if "http" in services:
            check_requests(service, name, key)


def check_effects(rig: Rig, name: str) -> None:
    """Each effect was named by its site, in order, and by the key if that is in it; all were done and understood."""
    outcomes = {(one.connection, one.effect): one.outcome for one in rig.all(Answered)}
    seen = [one for one in rig.all(Seen) if outcomes[one.connection, one.effect] != "refused"]
    named = [
        (one.points[0].partition("/")[2].partition("#")[0], any("[key]" in point for point in one.points))
        for one in seen
    ]
    assert named == [(effect.site, bool(effect.notes) or effect.site in KEYED) for effect in EXPECTED[name]]
    assert {outcomes[one.connection, one.effect] for one in seen} == {"done"}
    assert rig.all(Noted) == []


def check_rows(lane: Lane, name: str, key: str) -> None:
    """Each write and each commit is one transaction of the server, and there are no others."""
    rows = lane.execute("SELECT xmin::text, key, note FROM effects ORDER BY ctid")
    assert {row[1] for row in rows} == {key}
    transactions = [tuple(row[2] for row in rows) for _, rows in itertools.groupby(rows, key=lambda row: row[0])]
    assert transactions == [effect.notes for effect in EXPECTED[name] if effect.site.startswith("postgres.")]


def check_messages(lane: Lane, name: str, key: str) -> None:
    """All that was produced is in the topic, and what was committed is what those see who read only that."""
    sites = [effect for effect in EXPECTED[name] if effect.site.startswith("kafka.")]
    produced = [(key, note) for effect in sites if effect.site == "kafka.produce" for note in effect.notes]
    assert messages(lane, "read_uncommitted") == produced
    assert messages(lane, "read_committed") == [message for message in produced if message[1] != "aborted"]


def messages(lane: Lane, isolation: str) -> list[tuple[str, str]]:
    """Key and unpadded value of each message of the topic."""
    end = {"enable.partition.eof": True, "enable.auto.commit": False}
    consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": "none", "isolation.level": isolation, **end})
    consumer.assign([TopicPartition(lane.topics["t"], 0, 0)])
    found = []
    while True:
        message = consumer.poll(30)
        assert message is not None
        error = message.error()
        if error is not None:
            break
        found.append(((message.key() or b"").decode(), (message.value() or b"").decode().rstrip(".")))
    assert error.code() == KafkaError._PARTITION_EOF
    consumer.close()
    return found


def check_groups(lane: Lane, name: str, group: str) -> None:
    """Both ways to commit offsets have committed those behind the first two messages; nobody is left in a group."""
    groups = [group, f"{group}.transaction", *([f"{group}.consumer"] if name == "java" else [])]
    for one in groups:
        assert (one, lane.committed(one, lane.partitions("t"))) == (one, {(lane.topics["t"], 0): 2})
    for one, described in lane.kafka_admin.describe_consumer_groups(groups).items():
        assert (one, described.result().state) == (one, ConsumerGroupState.EMPTY)


def check_requests(service: Service, name: str, key: str) -> None:
    """It was asked what is expected on a connection that is kept, and one request's body came in chunks."""
    asked = [(f"http.{method.lower()}", (body["note"],) if body else ()) for method, _, _, body in service.asked]
    assert asked == [("http.get", ()), *(effect for effect in EXPECTED[name] if effect.site.startswith("http."))]
    assert {path for _, path, _, _ in service.asked} == {f"/effects/{key}"}
    assert {body["key"] for *_, body in service.asked if body} == {key}
    assert [body["note"] for _, _, encoding, body in service.asked if encoding == "chunked"] == ["chunked"]
    # fetch finds its first connection busy for a moment after each reply has been read, and goes by turns
    assert len(service.connections) <= (2 if name == "node" else 1)
