"""Which records a Fetch reply gives, whose keys somebody looks for, by hand-made frames and on a real broker."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given
from hypothesis import strategies as st

from chaos.waiting import Deadline, wait_until
from chaos.wire import kafka_fetch
from chaos.wire.kafka import Kafka
from chaos.wire.steps import Astray, Given, Pass
from tests.chaos.wire.kafka_frames import batch, reply, request, versions
from tests.chaos.wire.test_kafka_records import CODECS
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Session
    from chaos.wire.steps import Step

TOPIC = uuid.UUID(int=7)
TOPICS = {str(TOPIC).encode(): b"t"}
PLAIN = batch(*((b"order-%d" % number, b"paid" * number, {}) for number in range(1, 5)))


def at(base: int, packed: bytes = PLAIN, codec: str = "", control: int = 0) -> bytes:
    """The batch, in this compression, where its first record has that offset."""
    number, pack = CODECS[codec] if codec else (0, bytes)
    data = pack(packed[61:])
    attributes = struct.pack(">h", number | control)
    return struct.pack(">qi", base, len(data) + 49) + packed[12:21] + attributes + packed[23:61] + data


def fetched(version: int, *sections: bytes | None, **more: Any) -> bytes:
    """A reply with these in the partitions 3, 4 and so on."""
    partitions = [{"partition_index": index, "records": one} for index, one in enumerate(sections, 3)]
    topics = [{"topic": "t", "topic_id": TOPIC, "partitions": partitions}] if sections else []
    return reply(1, version, 0, 7, responses=topics, **more)


def order(number: int) -> Callable[[bytes], bool]:
    """Somebody looks for it."""
    return lambda piece: b"order-%d" % number in piece


def told(protocol: Kafka, answer: bytes, version: int = 12) -> list[Step]:
    """What is said to a Fetch with that reply, which has to pass as it is, behind it."""
    frame, other = request(1, version, 7), request(18, 3, 8)
    assert list(protocol.requests(frame + other)) == [Pass(frame + other)]
    behind = reply(18, 3, 0, 8)
    steps = list(protocol.replies(answer + behind))
    assert b"".join(step.data for step in steps if isinstance(step, Pass)) == answer + behind
    assert protocol.outstanding == 0
    return steps


def records(steps: list[Step]) -> list[tuple[str, int, bytes]]:
    """All records in them."""
    return [one for step in steps if isinstance(step, Given) for one in step.records]


@pytest.mark.parametrize("version", versions(1))
def test_every_version(version: int) -> None:
    """In each version, wanted records are said just behind their reply, with partition, offset and contents."""
    protocol = Kafka(topics=TOPICS, wanted=order(3))
    more = {"aborted_transactions": [{}, {}], "node_endpoints": [{"host": "here"}]}
    answer = fetched(version, at(5), None, b"", at(100) + at(1 << 40), **more)
    steps = told(protocol, answer, version)
    assert [type(step) for step in steps] == [Pass, Given, Pass]
    assert steps[0] == Pass(answer)
    wanted = [("t/3", 7), ("t/6", 102), ("t/6", (1 << 40) + 2)]
    assert [(where, offset) for where, offset, _ in records(steps)] == wanted
    assert {record for _, _, record in records(steps)} == {b"\0\0\4\x0eorder-3\x18paidpaidpaid\0"}
    assert not protocol.not_understood


@pytest.mark.parametrize("codec", CODECS)
def test_codecs(codec: str) -> None:
    """Offsets are those of the records in the batch, in each compression, and several may be wanted."""
    protocol = Kafka(wanted=lambda piece: b"order-2" in piece or b"order-4" in piece)
    steps = told(protocol, fetched(12, at(10, codec=codec) + at(20) + at(30, codec=codec)))
    assert [offset for _, offset, _ in records(steps)] == [11, 13, 21, 23, 31, 33]


def test_nothing_wanted() -> None:
    """A reply without records, one in which nobody looks for any, and one that nobody reads say nothing."""
    for answer in (
        fetched(12),
        fetched(12, None),
        fetched(12, b""),
        fetched(12, at(5)),
        fetched(12, at(5, codec="lz4")),
    ):
        assert told(Kafka(wanted=order(9)), answer) == [Pass(answer), Pass(reply(18, 3, 0, 8))]
        assert told(Kafka(), answer) == [Pass(answer + reply(18, 3, 0, 8))]


def test_what_is_asked() -> None:
    """A batch is asked for as a whole, and record by record only if it is wanted."""
    asked: list[bytes] = []

    def wanted(piece: bytes) -> bool:
        asked.append(piece)
        return b"order-3" in piece

    other = batch((b"order-9", b"", {}), (b"order-8", b"", {}))
    told(Kafka(wanted=wanted), fetched(12, at(0, other) + at(0)))
    assert asked[:2] == [other[61:], PLAIN[61:]]
    assert [piece[4:11] for piece in asked[2:]] == [b"order-%d" % number for number in range(1, 5)]


def test_markers() -> None:
    """What ends a transaction is nobody's record."""
    assert records(told(Kafka(wanted=lambda _: True), fetched(12, at(5, control=0x20) + at(9))))[0][1] == 9


@pytest.mark.parametrize("left", [1, 11, 12, 60, 61, len(PLAIN) - 1])
def test_half_a_batch(left: int) -> None:
    """Half a batch at the end, as a broker ends a reply, is no record and no mistake."""
    protocol = Kafka(wanted=order(3))
    steps = told(protocol, fetched(12, at(5) + at(9)[:left], at(20)))
    assert [(where, offset) for where, offset, _ in records(steps)] == [("t/3", 7), ("t/4", 22)]
    assert not protocol.not_understood


ODD: dict[str, tuple[bytes, str]] = {
    "an old format": (PLAIN[:16] + b"\1" + PLAIN[17:], "fetched record batch"),
    "a size below zero": (PLAIN[:8] + b"\xff" * 4 + PLAIN[12:], "fetched record batch"),
    "no such compression": (PLAIN[:21] + b"\0\5" + PLAIN[23:], "fetched record batch, compression codec 5"),
    "not compressed": (PLAIN[:21] + b"\0\3" + PLAIN[23:], "fetched record batch, compression lz4"),
    "a record too long": (at(0, PLAIN[:61] + b"\x7eorder-3"), "fetched record batch, compression none"),
    "a record too short": (at(0, PLAIN[:61] + b"\x01order-3"), "fetched record batch, compression none"),
    "an endless length": (at(0, PLAIN[:61] + b"\xff" * 20 + b"order-3"), "fetched record batch, compression none"),
    "no offset": (at(0, PLAIN[:61] + b"\x0eorder-3"), "fetched record batch, compression none"),
    "an offset behind the last": (PLAIN[:26] + b"\1" + PLAIN[27:], "fetched record batch, compression none"),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_batches(case: str) -> None:
    """A batch that cannot be read gives nothing and is counted; the partitions beside it are read."""
    odd, name = ODD[case]
    protocol = Kafka(wanted=order(3))
    steps = told(protocol, fetched(12, odd, at(20)))
    assert [(where, offset) for where, offset, _ in records(steps)] == [("t/4", 22)]
    assert protocol.not_understood == {name: 1}


def test_odd_replies() -> None:
    """A reply that cannot be read passes and is counted; so is one of a version that nobody knows, where one looks."""
    protocol, frame = Kafka(wanted=order(3)), bytearray(request(1, 12, 7))
    broken = b"\0\0\0\x08\0\0\0\7\xff\xff\xff\xff"
    assert told(protocol, broken)[0] == Pass(broken)
    frame[7] = 99
    list(protocol.requests(bytes(frame)))
    answer = fetched(12, at(5))
    assert list(protocol.replies(answer)) == [Pass(answer)]
    assert protocol.not_understood == {"reply to fetch v12, malformed": 1, "fetch v99": 1}
    nobody = Kafka()
    list(nobody.requests(bytes(frame)))
    assert not nobody.not_understood


def test_large_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply that is longer than what is read passes in the chunks that it came in; one that is not is kept whole."""
    monkeypatch.setattr("chaos.wire.kafka.LARGEST", len(fetched(12, at(5))) - 4)
    for section, large in ((at(5), False), (at(5) + b"?", True)):
        protocol, answer = Kafka(wanted=order(3)), fetched(12, section)
        list(protocol.requests(request(1, 12, 7)))
        steps = [list(protocol.replies(piece)) for piece in (answer[:40], answer[40:])]
        assert (steps == [[Pass(answer[:40])], [Pass(answer[40:])]]) is large
        assert (records(steps[1]) == []) is large
        assert protocol.outstanding == 0
    assert kafka_fetch.LARGEST == 1 << 20


def test_ids_that_nobody_knows() -> None:
    """A topic whose name was not told is named by its id, and by its name as soon as it was."""
    protocol = Kafka(wanted=order(3))
    assert [where for where, _, _ in records(told(protocol, fetched(13, at(5)), 13))] == [f"{TOPIC}/3"]
    list(protocol.requests(request(3, 12, 5)))
    list(protocol.replies(reply(3, 12, 0, 5, topics=[{"name": "t", "topic_id": TOPIC}])))
    assert [where for where, _, _ in records(told(protocol, fetched(13, at(5)), 13))] == ["t/3"]


def test_astray() -> None:
    """A reply that is read, and tells of brokers elsewhere, leads the client astray."""
    protocol = Kafka(lambda _host, _port: False, wanted=order(3))
    list(protocol.requests(request(1, 16, 7)))
    answer = fetched(16, at(5), node_endpoints=[{"host": "there", "port": 9093}])
    [step] = protocol.replies(answer)
    assert isinstance(step, Astray)


@given(st.binary(), st.sampled_from(versions(1)), st.booleans())
def test_any_section(section: bytes, version: int, whole: bool) -> None:  # noqa: FBT001
    """Any bytes in place of records, behind a batch or not, pass."""
    protocol = Kafka(wanted=lambda _: True)
    told(protocol, fetched(version, (at(5) if whole else b"") + section), version)


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255))), st.sampled_from(["", *CODECS]))
def test_any_damage(damage: list[tuple[int, int]], codec: str) -> None:
    """So does a batch of which some bytes were changed, and what is said of it are offsets."""
    section = bytearray(at(5, codec=codec))
    for place, byte in damage:
        section[place % len(section)] = byte
    for _, offset, record in records(told(Kafka(wanted=lambda _: True), fetched(12, bytes(section)))):
        assert -(1 << 63) <= offset < 1 << 64
        assert record


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_real_fetches(onecharge: Session, protocol: str) -> None:
    """A real consumer, whose Fetch knows topics by id, is given each wanted record at the offset that it says."""
    shared: dict[bytes, bytes] = {}
    with onecharge.lane(topics={"t": 2}) as lane:
        spare, topic = onecharge.services.kafka.spare.pop(), lane.topics["t"]
        for codec in ("none", "lz4"):
            producer = Producer({"bootstrap.servers": lane.kafka, "linger.ms": 100, "compression.type": codec})
            for number in range(40):
                producer.produce(topic, b"value", f"{codec}-{number:02}", partition=number % 2)
            assert producer.flush(20) == 0
        with Watcher(
            spare.advertised.number, spare.listens.number, lambda: Kafka(topics=shared, wanted=lambda p: b"-3" in p)
        ) as watcher:
            read = consume(spare.advertised.address, topic, protocol)
        onecharge.services.kafka.spare.append(spare)
    assert not watcher.torn
    assert not any(one.protocol.not_understood for one in watcher.connections)
    assert max(number for one in watcher.connections for number in fetch_versions(one.requests)) >= 13
    found = {(where, offset): record for one in watcher.connections for where, offset, record in records(one.steps)}
    expected = {(f"{topic}/{partition}", offset): key for partition, offset, key in read if b"-3" in key}
    assert len(read) == 80
    assert found.keys() == expected.keys()
    assert all(key + b"\x0avalue" in found[place] for place, key in expected.items())


def consume(address: str, topic: str, protocol: str) -> list[tuple[int, int, bytes]]:
    """Partition, offset and key of all that is there."""
    settings = {"bootstrap.servers": address, "group.id": topic + protocol, "group.protocol": protocol}
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    read: list[tuple[int, int, bytes]] = []

    def all_of_it() -> bool:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            read.append((message.partition() or 0, message.offset() or 0, bytes(message.key() or b"")))
        return len(read) >= 80

    wait_until("all records", all_of_it, Deadline(30))
    consumer.close()
    return read


def fetch_versions(requests: bytearray) -> Iterator[int]:
    """That of each Fetch in these."""
    place = 0
    while place + 8 <= len(requests):
        size, api, number = struct.unpack_from(">ihh", requests, place)
        if api == 1:
            yield number
        place += 4 + size
