"""What an observer of a Kafka broker would find of an effect, by frames made by hand and by a real broker's word."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from chaos.wire.kafka import Kafka
from chaos.wire.steps import Answer, Effect
from tests.chaos.wire.kafka_frames import batch, reply, request, versions
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from chaos import Session

TOPIC = uuid.UUID(int=7)
ONE, TWO = batch((b"order-1", b"paid", {})), batch((b"order-2", b"paid", {}), (None, b"", {}))
UNREADABLE = b"\0" * 70
EMPTY = ONE[:23] + b"\xff\xff\xff\xff" + ONE[27:]  # its last record is before its first


def produced(*sections: bytes | None, acks: int = -1) -> dict[str, Any]:
    """A Produce of a section for each partition."""
    partitions = [{"index": index, "records": records} for index, records in enumerate(sections)]
    return {"acks": acks, "topic_data": [{"name": "t", "topic_id": TOPIC, "partition_data": partitions}]}


def taken(*offsets: int) -> dict[str, Any]:
    """The reply to it, of a first offset for each partition."""
    partitions = [{"index": index, "base_offset": offset} for index, offset in enumerate(offsets)]
    return {"responses": [{"name": "t", "topic_id": TOPIC, "partition_responses": partitions}]}


def metadata(version: int) -> bytes:
    """A reply that tells the name of the topic, and has others without."""
    topics = [{"name": "other"}, {"name": "t", "topic_id": TOPIC}, {"topic_id": uuid.UUID(int=8)}]
    return reply(3, version, 0, 5, topics=topics)


@pytest.mark.parametrize("version", versions(0))
def test_appended(version: int) -> None:
    """The offsets of what was appended are the reply's first and as many as the request had, batch after batch."""
    protocol = Kafka(topics={str(TOPIC).encode(): b"t"})
    effect, _ = protocol.requests(request(0, version, 7, **produced(ONE, TWO, ONE + TWO, None)))
    assert isinstance(effect, Effect)
    assert effect.evidence == ()
    [answer] = protocol.replies(reply(0, version, 0, 7, **taken(5, 1 << 40, 0, 9)))
    assert isinstance(answer, Answer)
    assert answer.evidence == ("log:t/0:5-5", f"log:t/1:{1 << 40}-{(1 << 40) + 1}", "log:t/2:0-2")


@pytest.mark.parametrize(
    ("error", "offset", "expected"),
    [(0, 5, True), (0, -1, False), (46, 5, False), (29, 5, False), (7, 5, True), (20, 5, True), (20, -1, False)],
)
def test_not_appended(error: int, offset: int, expected: bool) -> None:  # noqa: FBT001
    """A reply that does not say where, a refusal, and a duplicate add nothing; one that came too late says where."""
    protocol = Kafka()
    list(protocol.requests(request(0, 10, 7, **produced(ONE))))
    [answer] = protocol.replies(reply(0, 10, error, 7, **taken(offset)))
    assert isinstance(answer, Answer)
    assert answer.evidence == (("log:t/0:5-5",) if expected else ())


def test_uncounted() -> None:
    """Batches that cannot be read, partitions that were not sent, and a reply that cannot be read add nothing."""
    protocol = Kafka()
    list(protocol.requests(request(0, 10, 7, **produced(UNREADABLE, EMPTY, ONE + b"?", ONE))))
    [answer] = protocol.replies(reply(0, 10, 0, 7, **taken(1, 2, 3, 4, 5)))
    assert isinstance(answer, Answer)
    assert answer.evidence == ("log:t/3:4-4",)
    list(protocol.requests(request(0, 9, 8, **produced(ONE))))
    assert [*protocol.replies(b"\0\0\0\x08\0\0\0\x08\0\0\0\0")] == [
        Answer(2, "unclear", b"\0\0\0\x08\0\0\0\x08\0\0\0\0")
    ]


def test_sent() -> None:
    """What expects no answer is counted when it is sent."""
    effect, _ = Kafka().requests(request(0, 10, 7, **produced(ONE, None, TWO, acks=0)))
    assert isinstance(effect, Effect)
    assert effect.evidence == ("sent:t/0:1", "sent:t/2:2")


@pytest.mark.parametrize("version", versions(3))
def test_names_of_ids(version: int) -> None:
    """What one connection learns of topics names them on all that share it; an id that nobody knows stays one."""
    shared: dict[bytes, bytes] = {}
    learns, uses, alone = Kafka(topics=shared), Kafka(topics=shared), Kafka()
    list(learns.requests(request(3, version, 5)))
    list(learns.replies(metadata(version)))
    assert shared == ({str(TOPIC).encode(): b"t"} if version >= 10 else {})
    assert not learns.not_understood
    offsets = {"name": "t", "topic_id": TOPIC, "partitions": [{"partition_index": 1, "committed_offset": 42}]}
    for protocol, name in ((uses, "t" if shared else str(TOPIC)), (alone, str(TOPIC))):
        effect, *_ = protocol.requests(request(8, 10, 7, group_id="g", topics=[offsets]))
        assert isinstance(effect, Effect)
        assert effect.evidence == (f"offset:g:{name}/1:42",)


def test_real_evidence(onecharge: Session) -> None:
    """What the broker has, is where evidence says: records, offsets of groups, and the transactions' ends."""
    with onecharge.lane(topics={"t": 2}) as lane:
        spare, topic = onecharge.services.kafka.spare.pop(), lane.topics["t"]
        with Watcher(spare.advertised.number, spare.listens.number, Kafka) as watcher:
            address = {"bootstrap.servers": spare.advertised.address}
            said = produce(address, topic, "lz4") | produce(address, topic, "none")
            transact(address, topic)
        onecharge.services.kafka.spare.append(spare)
        found = set(evidence(watcher))
        logged = {offset for item in found for offset in offsets(item, topic)}
        assert said <= logged
        assert len(logged) == len(said) + 1, "and one record of the transaction"
        assert {f"offset:{topic}:{topic}/1:4", f"txn:{topic}"} <= found
        group = Consumer({"bootstrap.servers": lane.kafka, "group.id": topic})
        [committed] = group.committed([TopicPartition(topic, 1)], timeout=20)
        group.close()
        assert committed.offset == 4


def evidence(watcher: Watcher) -> list[str]:
    """All that was said."""
    steps = [step for one in watcher.connections for step in one.steps]
    return [item for step in steps if isinstance(step, Effect | Answer) for item in step.evidence]


def offsets(item: str, topic: str) -> list[tuple[int, int]]:
    """The partition and the offset of each record in an item of evidence, which must be about this topic."""
    kind, _, rest = item.partition(":")
    if kind != "log":
        return []
    where, _, span = rest.rpartition(":")
    first, _, last = span.partition("-")
    assert where.startswith(f"{topic}/")
    return [(int(where.rpartition("/")[2]), offset) for offset in range(int(first), int(last) + 1)]


def produce(address: dict[str, Any], topic: str, codec: str) -> set[tuple[int, int]]:
    """Twenty records in batches; where the client was told they are."""
    said: set[tuple[int, int]] = set()
    producer = Producer({**address, "linger.ms": 50, "compression.type": codec})
    for number in range(20):
        producer.produce(
            topic, b"value", str(number), on_delivery=lambda _, one: said.add((one.partition() or 0, one.offset() or 0))
        )
    assert producer.flush(20) == 0
    assert len(said) == 20
    return said


def transact(address: dict[str, Any], topic: str) -> None:
    """A record and an offset of a group, in a transaction."""
    producer, group = Producer({**address, "transactional.id": topic}), Consumer({**address, "group.id": topic})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"value", b"in a transaction")
    producer.send_offsets_to_transaction([TopicPartition(topic, 1, 4)], group.consumer_group_metadata(), 20)
    producer.commit_transaction(20)
    group.close()
