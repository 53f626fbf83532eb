"""Effects of Kafka and HTTP that no producer or consumer has every day, on real servers through the wire."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, ShareConsumer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from chaos.waiting import Deadline, wait_until
from chaos.wire import messages
from tests.chaos.wire import exact_workers
from tests.chaos.wire.exact import end_offset
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Session


@pytest.fixture
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane with a topic."""
    with onecharge.lane(topics={"t": 1}) as lane:
        yield lane


@pytest.fixture
def rig(lane: Lane) -> Rig:
    """Its wire, with a worker called client."""
    rig = Rig(lane)
    lane.links.enlist("client", "client", 0)
    rig.arm("")
    return rig


def test_administration(lane: Lane, rig: Rig) -> None:
    """Creating and deleting topics and deleting groups are effects; asking for them is none."""
    admin = AdminClient({"bootstrap.servers": lane.links.kafka("client")})
    admin.list_topics(timeout=10)
    name, group = f"{lane.name}.extra", f"{lane.name}.group"
    admin.create_topics([NewTopic(name, 1)])[name].result()
    consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": group, "auto.offset.reset": "earliest"})
    with contextlib.closing(consumer):
        consumer.subscribe([lane.topics["t"]])
        wait_until("an assignment", lambda: consumer.poll(0.1) or consumer.assignment(), Deadline(20))
    admin.delete_topics([name])[name].result()
    admin.delete_consumer_groups([group])[group].result()
    assert rig.sites() == ["kafka.create_topics", "kafka.delete_topics", "kafka.delete_groups"]
    rig.wait("all answers", lambda: len(rig.all(messages.Answered)) == 3)
    assert {one.outcome for one in rig.all(messages.Answered)} == {"done"}


def test_refused(lane: Lane, rig: Rig) -> None:
    """A reply that says error is refused: nothing happened."""
    admin = AdminClient({"bootstrap.servers": lane.links.kafka("client")})
    with pytest.raises(Exception, match="TOPIC_ALREADY_EXISTS"):
        admin.create_topics([NewTopic(lane.topics["t"], 1)])[lane.topics["t"]].result()
    [answer] = rig.wait("the answer", lambda: rig.all(messages.Answered))
    assert answer.outcome == "refused"


@pytest.mark.parametrize("how", ["lose-reply", "lose-reply=silent"])
def test_no_reply_to_lose(lane: Lane, rig: Rig, how: str) -> None:
    """A produce with acks=0 is complete when it was forwarded: its reply cannot be lost, and that is said."""
    rig.arm(f"client/kafka.produce#1:{how}")
    producer = Producer({"bootstrap.servers": lane.links.kafka("client"), "acks": 0})
    producer.produce(lane.topics["t"], b"value")
    producer.flush()
    assert rig.failed() == "kafka.produce asked for no reply, so none can be lost"
    wait_until("the message", lambda: end_offset(lane, "t") == 1, Deadline(10))


@pytest.mark.parametrize("static", [False, True])
def test_leaving_a_group_of_the_new_protocol(lane: Lane, rig: Rig, static: bool) -> None:  # noqa: FBT001
    """A member of a KIP-848 group leaves by a heartbeat of epoch -1, a static one -2; its other heartbeats pass."""
    settings = {"bootstrap.servers": lane.links.kafka("client"), "group.id": lane.name, "group.protocol": "consumer"}
    consumer = Consumer({**settings, **({"group.instance.id": "one"} if static else {})})
    with contextlib.closing(consumer):
        consumer.subscribe([lane.topics["t"]])
        wait_until("an assignment", lambda: consumer.poll(0.1) or consumer.assignment(), Deadline(20))
        assert rig.sites() == []
    rig.wait("the answer", lambda: rig.all(messages.Answered))
    assert rig.sites() == ["kafka.leave_group"]


@pytest.mark.slow
def test_acknowledging_in_a_share_group(lane: Lane, rig: Rig) -> None:
    """Acknowledgements of a share group are effects, its fetches are none; leaving it is one."""
    producer = Producer({"bootstrap.servers": lane.kafka})

    def receive() -> int:
        producer.produce(lane.topics["t"], b"value")  # a new group begins behind what was there before it
        producer.flush()
        return sum(message.error() is None for message in consumer.poll(0.3))

    settings = {"bootstrap.servers": lane.links.kafka("client"), "group.id": lane.name, "log_level": 0}
    consumer = ShareConsumer(settings)
    with contextlib.closing(consumer):
        consumer.subscribe([lane.topics["t"]])
        wait_until("a message", receive, Deadline(30))
        consumer.commit_sync(10)
    rig.wait("leaving", lambda: rig.sites()[-1:] == ["kafka.leave_group"])
    assert set(rig.sites()[:-1]) == {"kafka.share_acknowledge"}


def test_expect_continue_and_http2(lane: Lane, rig: Rig) -> None:
    """A body that waits for 100 Continue is let through; what begins as HTTP/2 passes raw, and it is said."""
    sink = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
    port = int(lane.links.translate("client", sink.url).rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as end:
        end.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 22\r\n\r\n")
        assert end.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        end.sendall(b'{"tag": "abc", "n": 1}')
        assert end.recv(12) == b"HTTP/1.1 201"
    assert rig.sites() == ["http.post"]
    with socket.create_connection(("127.0.0.1", port), timeout=20) as end:
        end.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert end.recv(1000)
    [noted] = rig.wait("a word", lambda: rig.all(messages.Noted))
    assert (noted.kind, noted.text) == ("raw", "HTTP/2")
