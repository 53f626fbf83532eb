"""The wire process itself: what it leaves behind, what it cannot see, whom it kills, what it records."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import struct
import time
import uuid
from typing import TYPE_CHECKING, NoReturn

import psutil
import psycopg
import pytest

from chaos import ChaosError, Session, Worker
from chaos.faults import registered
from chaos.services.ports import lease_port
from chaos.waiting import Deadline, wait_until
from chaos.wire import client, messages
from chaos.wire.sockets import HIDDEN, Watch
from tests.chaos.wire import exact_workers, wire_workers
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos import Lane
    from chaos.lane import Trusted

POST = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{"tag": "abc", "n": 1}'
RESET = struct.pack("ii", 1, 0)


@pytest.fixture
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane without servers."""
    with onecharge.lane() as lane:
        yield lane


@pytest.fixture
def sink(lane: Lane) -> Trusted:
    """A service that records what is posted."""
    return lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")


@pytest.fixture
def rig(lane: Lane) -> Rig:
    """The lane's wire, with a worker called client."""
    rig = Rig(lane)
    lane.links.enlist("client", "client", 0)
    return rig


def link(lane: Lane, service: Trusted) -> int:
    """The port at which the client reaches a service."""
    return int(lane.links.translate("client", service.url).rpartition(":")[2])


def connect(port: int) -> socket.socket:
    """A connection to a port of this machine."""
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def count(rig: Rig) -> tuple[str, ...]:
    """How many connections and tasks the wire has."""
    return rig.wire.do(messages.Count)


def test_a_thousand_connections(lane: Lane, sink: Trusted, rig: Rig) -> None:
    """Of a thousand connections, closed, reset, broken in the middle, lost and cut, nothing is left."""
    port, process = link(lane, sink), psutil.Process(rig.wire.process.pid)
    rig.arm("")
    with connect(port) as first:
        first.sendall(POST)
        first.recv(1)
    wait_until("the first connection to be gone", lambda: count(rig) == ("0", "0"), Deadline(10))
    descriptors, threads, children = process.num_fds(), process.num_threads(), len(process.children())
    for turn in range(10):
        rig.arm("; ".join(f"client/http.post#{n + 1}:lose-request" for n in range(20)))
        ends = [connect(port) for _ in range(100)]
        for number, end in enumerate(ends):
            end.sendall(POST if number % 3 else POST[:-5])
        for end in ends[::3]:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        for number, end in enumerate(ends):
            if number % 3 == 1:
                with contextlib.suppress(ConnectionResetError):
                    assert end.recv(12) in {b"", b"HTTP/1.1 201"}
            if number % 10:
                end.close()
        lane.links.cut("client")
        lane.links.bury("client")
        lane.links.enlist("client", "client", turn + 1)
        for end in ends:
            end.close()
    wait_until("all connections to be gone", lambda: count(rig) == ("0", "0"), Deadline(10))
    assert len(rig.all(messages.Closed)) == len(rig.all(messages.Opened))
    assert (process.num_fds(), process.num_threads(), len(process.children())) == (descriptors, threads, children)


def test_slow_reader(rig: Rig) -> None:
    """What a slow reader has not read waits with its sender, not in the wire, and arrives whole."""
    size = 64 << 20
    upstream = lease_port()
    port = lease_port()
    with socket.create_server(("127.0.0.1", upstream.number)) as server:
        told = (port.number, "127.0.0.1", upstream.number)
        rig.wire.do(lambda number: messages.OpenLink(number, "client", "http", *told))
        with connect(port.number) as reader:
            sender, _ = server.accept()
            sender.settimeout(0.5)
            reader.sendall(b"GET / HTTP/1.1\r\n\r\n")
            sender.recv(100)
            sender.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
            before, sent = psutil.Process(rig.wire.process.pid).memory_info().rss, 0
            with contextlib.suppress(TimeoutError):
                while sent < size:
                    sent += sender.send(b"x" * min(1 << 20, size - sent))
            assert sent < size
            assert psutil.Process(rig.wire.process.pid).memory_info().rss - before < 16 << 20
            reader.recv(1 << 16)
            sender.close()
            received = sum(len(piece) for piece in iter(lambda: reader.recv(1 << 20), b""))
            assert sent <= received + (1 << 16)
    upstream.close()
    port.close()


def test_around_the_wire(lane: Lane, sink: Trusted, rig: Rig) -> None:
    """A worker that is connected to a server's own address is found and named."""
    port = sink.url.rpartition(":")[2]
    process = rig.start(Worker("sly", wire_workers.go_around, env={"REAL_PORT": port}))
    [found] = wait_until("the connection", lane.links.unseen, Deadline(10))
    assert found.startswith(f"sly.0 is connected to 127.0.0.1:{port} directly, around the wire")
    process.kill()
    assert lane.links.unseen() == ()


def test_child_that_owns_the_connection(sink: Trusted, rig: Rig) -> None:
    """With kill="process" only the child that sends is killed, and its parent's next child goes on."""
    worker = Worker("parent", wire_workers.keep_a_child, env={"HTTP_URL": sink.url}, kill="process")
    rig.arm("parent/http.post#1:crash-before")
    parent = rig.start(worker)
    fired = rig.fired()
    assert not fired.killed
    wait_until("the next child's request", lambda: sink.ledger.of("child-1"), Deadline(10))
    assert parent.exit is None
    assert sink.ledger.of("child-0") == []
    parent.kill()


def test_recorder(lane: Lane, sink: Trusted, rig: Rig) -> None:
    """The wire's record has each request that changed something, with its reply, also one whose reply was lost."""
    recorded = lane.recorder(sink.url, ledger="recorded.jsonl", key="tag")
    port = link(lane, sink)
    rig.arm("client/http.post#2:lose-reply")
    with connect(port) as end:
        end.sendall(POST)
        assert end.recv(12) == b"HTTP/1.1 201"
        assert len(recorded.ledger.of("abc")) == 1
        end.sendall(POST)
        rig.fired()
    [one, two] = (json.loads(record.text) for record in recorded.ledger.of("abc"))
    asked = {"worker": "client", "method": "POST", "path": "/", "request": '{"tag": "abc", "n": 1}', "status": 201}
    assert asked.items() <= one.items()
    assert asked.items() <= two.items()
    assert len(sink.ledger.of("abc")) == 2


@pytest.mark.usefixtures("rig")
def test_request_without_a_reply_is_recorded(lane: Lane) -> None:
    """A request that was let through and never answered counts as an effect, its status unknown."""
    upstream = lease_port()
    url = f"http://{upstream.address}"
    recorded = lane.recorder(url, ledger="recorded.jsonl", key="tag")
    port = int(lane.links.translate("client", url).rpartition(":")[2])
    with socket.create_server(("127.0.0.1", upstream.number)) as server, connect(port) as end:
        end.sendall(POST)
        accepted, _ = server.accept()
        accepted.recv(1000)
        accepted.close()
        assert end.recv(100) == b""
    [record] = wait_until("the record", lambda: recorded.ledger.of("abc"), Deadline(10))
    assert record.effect
    assert json.loads(record.text)["status"] is None
    upstream.close()


def test_astray(onecharge: Session) -> None:
    """A Kafka client that is told an address where the wire does not stand is cut off, and it is said."""
    with onecharge.lane(topics={"t": 1}) as lane:
        rig, port = Rig(lane), lease_port()
        lane.links.enlist("client", "client", 0)
        host, _, real = lane.kafka.rpartition(":")
        told = (port.number, host, int(real))
        rig.wire.do(lambda number: messages.OpenLink(number, "client", "kafka", *told))
        with connect(port.number) as end:
            body = struct.pack(">hhih", 3, 1, 7, -1) + struct.pack(">i", -1)  # Metadata v1, all topics
            end.sendall(struct.pack(">i", len(body)) + body)
            with pytest.raises(ConnectionResetError):
                end.recv(1)
        [noted] = rig.wait("a word", lambda: rig.all(messages.Noted))
        assert noted.kind == "astray"
        assert lane.kafka in noted.text
        port.close()


def test_encryption(onecharge: Session) -> None:
    """Postgres clients who insist on TLS are told no; TLS to Kafka passes unseen, and it is said."""
    with onecharge.lane(schema="", topics={"t": 1}) as lane:
        rig = Rig(lane)
        lane.links.enlist("client", "client", 0)
        url = lane.links.postgres("client")
        with psycopg.connect(url, sslmode="prefer") as session:
            session.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError, match="SSL"):
            psycopg.connect(url, sslmode="require")
        host, _, port = lane.links.kafka("client").rpartition(":")
        context = ssl.create_default_context()
        with connect(int(port)) as end, contextlib.suppress(OSError):
            context.wrap_socket(end, server_hostname=host)
        [noted] = rig.wait("a word", lambda: rig.all(messages.Noted))
        assert noted.kind == "raw"
        assert "TLS" in noted.text


def test_server_that_is_away(rig: Rig) -> None:
    """Where nobody listens behind the wire, the client's connection is reset, and works when somebody does."""
    upstream, port = lease_port(), lease_port()
    told = (port.number, "127.0.0.1", upstream.number)
    rig.wire.do(lambda number: messages.OpenLink(number, "client", "http", *told))
    with pytest.raises(ConnectionResetError), connect(port.number) as end:  # it may be while it still connects
        end.recv(1)
    with socket.create_server(("127.0.0.1", upstream.number)) as server, connect(port.number) as end:
        end.sendall(POST)
        accepted, _ = server.accept()
        assert accepted.recv(1000) == POST
        accepted.close()
    upstream.close()
    port.close()


def test_keys(lane: Lane, sink: Trusted, rig: Rig) -> None:
    """An effect is named by count and by each key in it, a UUID in any spelling; counts begin anew when armed."""
    port, key = link(lane, sink), "7c9e6679f7424e0bb2b0d9f4a7f2a9c1"
    rig.arm("")
    rig.wire.do(lambda number: messages.Name(number, key, "key-1"))
    rig.wire.do(lambda number: messages.Name(number, "abc", "key-2"))
    spelt = f"POST /{uuid.UUID(key)} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"
    with connect(port) as end:
        end.sendall(POST + spelt.encode())
        rig.wait("both", lambda: len(rig.all(messages.Seen)) == 2)
    assert [one.points for one in rig.all(messages.Seen)] == [
        ("client~0/http.post#1", "client~0/http.post[key-2]#1"),
        ("client~0/http.post#2", "client~0/http.post[key-1]#1"),
    ]
    rig.arm("")
    with connect(port) as end:
        end.sendall(POST)
        rig.wait("it", lambda: rig.all(messages.Seen))
    assert rig.all(messages.Seen)[0].points == ("client~0/http.post#1",)


def test_wire_that_dies(onecharge: Session) -> None:
    """A wire process that is gone is said at once, with its log, and nothing waits for it."""
    with onecharge.lane() as lane:
        rig = Rig(lane)
        rig.wire.process.kill()
        began = time.monotonic()
        with pytest.raises(ChaosError, match="wire"):
            rig.arm("")
        assert time.monotonic() - began < 5


def test_no_fault_without_its_body(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault whose body was switched off has not fired, whichever it is, and the request goes its way."""
    monkeypatch.setattr(client, "_MAIN", "tests.chaos.wire.switched_off")
    with Session(tmp_path) as session, session.lane() as lane:
        sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
        rig = Rig(lane)
        lane.links.enlist("client", "client", 0)
        with connect(link(lane, sink)) as end:
            for name in registered():
                rig.arm(f"client/http.post#1:{name}")
                end.sendall(POST)
                assert end.recv(1000).startswith(b"HTTP/1.1 201")
                assert rig.failed() == "it did nothing"
    assert os.environ.get("ONECHARGE_WIRE") is None


def test_what_is_not_for_us_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process whose sockets another user has is not taken for innocent."""
    watch = Watch()
    assert watch.around({os.getpid()}, {("127.0.0.1", 1)}) == {}

    def refuse(path: str) -> NoReturn:
        raise PermissionError(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert watch.around({os.getpid()}, {("127.0.0.1", 1)}) == {os.getpid(): {HIDDEN}}


def test_socket_that_connects_later() -> None:
    """A socket that was open and not connected when it was looked at is looked at again."""
    watch = Watch()
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as client:
        address = server.getsockname()
        assert watch.around({os.getpid()}, {address}) == {}
        client.connect(address)
        assert watch.around({os.getpid()}, {address}) == {os.getpid(): {f"127.0.0.1:{address[1]}"}}
        assert watch.around({os.getpid()}, {("127.0.0.1", 1)}) == {}
