"""The Kafka protocol on the wire: every version of every effect, real clients, and bytes that are none of it."""

from __future__ import annotations

import itertools
import random
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from chaos.waiting import Deadline, wait_until
from chaos.wire.kafka import LIMIT, Kafka
from chaos.wire.steps import Answer, Delivered, Effect, Pass, Raw
from tests.chaos.wire import fuzzing
from tests.chaos.wire.kafka_frames import batch, reply, request, versions
from tests.chaos.wire.test_kafka_records import CODECS as PACKS
from tests.chaos.wire.test_kafka_records import packed
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session
    from chaos.wire.steps import Step

TOPIC = uuid.UUID(int=7)
RECORDS = batch((b"order-1", b"paid", {b"trace": b"t-1"}), (None, b"", {}))
LZ4 = packed(3, PACKS["lz4"][1](RECORDS[61:]))
ACKED = {"partition_index": 1, "acknowledgement_batches": [{"first_offset": 3, "last_offset": 5}]}
SHARE = {"group_id": "g", "topics": [{"topic_id": TOPIC, "partitions": [ACKED]}]}
LEAVE = {"group_id": "g", "member_id": "m"}
PARTITION = {"partition_index": 1, "committed_offset": 42}
NAMED = {"name": "t", "topic_id": TOPIC, "partitions": [PARTITION]}
PRODUCE: dict[str, Any] = {
    "acks": -1,
    "topic_data": [{"name": "t", "topic_id": TOPIC, "partition_data": [{"records": RECORDS}]}],
}
OFFSETS = b"%b:1:42"

EFFECTS: list[tuple[int, str, dict[str, Any], tuple[bytes, ...]]] = [
    (0, "kafka.produce", PRODUCE, (RECORDS[61:],)),
    (8, "kafka.offset_commit", {"group_id": "g", "topics": [NAMED]}, (b"g", OFFSETS)),
    (13, "kafka.leave_group", LEAVE | {"members": [LEAVE]}, (b"g", b"m")),
    (19, "kafka.create_topics", {"topics": [NAMED]}, (b"t",)),
    (20, "kafka.delete_topics", {"topic_names": ["t"], "topics": [NAMED]}, (b"t",)),
    (22, "kafka.init_producer_id", {"transactional_id": "x"}, (b"x",)),
    (26, "kafka.commit_transaction", {"transactional_id": "x", "committed": True}, (b"x",)),
    (26, "kafka.abort_transaction", {"transactional_id": "x", "committed": False}, (b"x",)),
    (
        28,
        "kafka.txn_offset_commit",
        {"group_id": "g", "transactional_id": "x", "topics": [NAMED]},
        (b"g", b"x", OFFSETS),
    ),
    (42, "kafka.delete_groups", {"groups_names": ["g"]}, (b"g",)),
    (68, "kafka.leave_group", LEAVE | {"member_epoch": -1}, (b"g", b"m")),
    (68, "kafka.leave_group", LEAVE | {"member_epoch": -2}, (b"g", b"m")),
    (76, "kafka.leave_group", LEAVE | {"member_epoch": -1}, (b"g", b"m")),
    (78, "kafka.share_acknowledge", SHARE, (b"g", b"%b:1:3-5" % str(TOPIC).encode())),
    (79, "kafka.share_acknowledge", SHARE, (b"g", b"%b:1:3-5" % str(TOPIC).encode())),
    (88, "kafka.leave_group", LEAVE | {"member_epoch": -2}, (b"g", b"m")),
]
EVIDENCE = {
    "kafka.offset_commit": "offset:g:{}/1:42",
    "kafka.commit_transaction": "txn:x",
    "kafka.abort_transaction": "txn:x",
    "kafka.txn_offset_commit": "offset:g:{}/1:42",
}
EVERY = [
    pytest.param(api, version, site, values, contents, id=f"{site}-api{api}-v{version}-{number}")
    for number, (api, site, values, contents) in enumerate(EFFECTS)
    for version in versions(api)
]
NO_EFFECTS: list[tuple[int, dict[str, Any]]] = [
    (3, {}),
    (1, {}),
    (24, {"transactional_id": "x", "v3_and_below_transactional_id": "x"}),
    (25, {"transactional_id": "x", "group_id": "g"}),
    (22, {}),
    (68, LEAVE | {"member_epoch": 0}),
    (78, {"group_id": "g", "topics": []}),
    (36, {"auth_bytes": b"\0user\0password"}),
]


def chunks(data: bytes, seed: int, most: int = 50) -> Iterator[bytes]:
    """The data in pieces of random size."""
    dice, at = random.Random(seed), 0
    while at < len(data):
        size = dice.randint(1, most)
        yield data[at : at + size]
        at += size


def fed(protocol: Kafka, requests: bytes, replies: bytes = b"", seed: int = 0, most: int = 50) -> list[Step]:
    """All steps: those of the requests in random pieces, then those of the replies, until both sides close."""
    steps: list[Step] = []
    for data, tell in ((requests, protocol.requests), (replies, protocol.replies)):
        said = [step for piece in (*chunks(data, seed, most), b"") for step in tell(piece)]
        assert b"".join(step.data for step in said if isinstance(step, Pass | Effect | Answer)) == data
        steps += said
    return steps


def told(steps: list[Step]) -> list[Step]:
    """The steps that say something."""
    return [step for step in steps if not isinstance(step, Pass)]


@pytest.mark.parametrize(("api", "version", "site", "values", "contents"), EVERY)
def test_every_version(api: int, version: int, site: str, values: dict[str, Any], contents: tuple[bytes, ...]) -> None:
    """Each version of each effect is seen with its contents and evidence, delivered at once, answered by its reply."""
    name = str(TOPIC).encode() if api == 8 and version >= 10 else b"t"
    contents = tuple(OFFSETS % name if piece == OFFSETS else piece for piece in contents)
    evidence = tuple(EVIDENCE[one].format(name.decode()) for one in [site] if one in EVIDENCE)
    effect = Effect(1, site, contents, request(api, version, 7, **values), evidence=evidence)
    other, frame = request(3, 9, 6), effect.data
    for error, outcome in ((0, "done"), (29, "refused"), (7, "unclear")):
        protocol, answer = Kafka(), reply(api, version, error, 7)
        steps = fed(protocol, other + frame + other, reply(3, 9, 0, 6) + answer, seed=version)
        assert told(steps) == [effect, Delivered(1), Answer(1, outcome, answer)]  # type: ignore[arg-type]
        assert not protocol.not_understood


@pytest.mark.parametrize(("api", "values"), NO_EFFECTS)
def test_no_effect(api: int, values: dict[str, Any]) -> None:
    """What changes nothing in the world, or only state that nobody can see, passes."""
    for version in versions(api):
        protocol = Kafka()
        assert told(fed(protocol, request(api, version, **values))) == []
        assert not protocol.not_understood


def test_unanswered() -> None:
    """A produce with acks=0 is said to be unanswered, and the next reply is not taken for its own."""
    frame = request(0, 10, 7, **{**PRODUCE, "acks": 0})
    steps = told(fed(Kafka(), frame, reply(0, 10, 0, 7)))
    sent = Effect(1, "kafka.produce", (RECORDS[61:],), frame, answered=False, evidence=("sent:t/0:2",))
    assert steps == [sent, Delivered(1)]


def test_replies_out_of_order() -> None:
    """Replies belong to effects by correlation id, whatever their order."""
    frames = b"".join(request(42, 2, number, groups_names=["g"]) for number in (1, 2, 3))
    replies = [reply(42, 2, error, number) for number, error in ((3, 0), (1, 7), (2, 29))]
    answers = [step for step in fed(Kafka(), frames, b"".join(replies)) if isinstance(step, Answer)]
    assert [(step.number, step.outcome) for step in answers] == [(3, "done"), (1, "unclear"), (2, "refused")]


def test_undecodable_reply() -> None:
    """A reply that cannot be read leaves it open what happened."""
    broken = b"\0\0\0\x08\0\0\0\7\0\0\0\0"
    [_, _, answer] = told(fed(Kafka(), request(0, 9, 7, **PRODUCE), broken))
    assert answer == Answer(1, "unclear", broken)


def test_undecodable_request() -> None:
    """A request that cannot be read passes and is counted, even if it claims thousands of millions of elements."""
    protocol, head = Kafka(), request(42, 2, groups_names=[])[:-2]
    frame = head + b"\xff\xff\xff\xff\x0f"
    assert told(fed(protocol, len(frame[4:]).to_bytes(4, "big") + frame[4:])) == []
    assert protocol.not_understood == {"delete_groups v2, malformed": 1}


def test_not_understood() -> None:
    """An api or a version that nobody knows passes and is counted; what follows is understood."""
    newer = bytearray(request(0, 13, **PRODUCE))
    newer[7] = 99
    unknown = bytearray(request(3, 9))
    unknown[5] = 200
    protocol = Kafka()
    steps = told(fed(protocol, request(18, 3) + newer + unknown + request(42, 2, groups_names=["g"])))
    assert [step.site for step in steps if isinstance(step, Effect)] == ["kafka.delete_groups"]
    assert protocol.not_understood == {"produce v99": 1, "api 200": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
        (b"\xff\xff\xff\xff", "-1 bytes"),
        ((LIMIT + 1).to_bytes(4, "big"), f"{LIMIT + 1} bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "GET "),
        (b"\0\0\0\x10\x7f\x00\0\0\0\0\0\1\0\0\0\0", "api numbered 32512"),
        (b"\0\0\0\x10\0\x11\0\0\0\0\0\1\0\0\0\0", "SASL handshake v0"),
    ],
)
def test_raw(data: bytes, reason: str) -> None:
    """What cannot be Kafka is said once, with the reason; then both directions pass, effects or not."""
    protocol = Kafka()
    [raw] = told(fed(protocol, data + request(0, 10, **PRODUCE), request(3, 9) * 3))
    assert isinstance(raw, Raw)
    assert reason in raw.reason


def test_raw_from_server() -> None:
    """A server that does not speak Kafka is noticed too."""
    [raw] = told(fed(Kafka(), b"", b"HTTP/1.1 400 Bad Request\r\n"))
    assert isinstance(raw, Raw)


def test_nothing_early() -> None:
    """Nothing of an effect is sent before all of it has arrived, and half an effect at the end was none."""
    frame, protocol = request(0, 10, **PRODUCE), Kafka()
    assert [list(protocol.requests(frame[at : at + 1])) for at in range(len(frame) - 1)] == [[]] * (len(frame) - 1)
    assert list(protocol.requests(b"")) == [Pass(frame[:-1])]


def test_chunks_pass_whole() -> None:
    """A large reply of no interest passes as the very chunks it came in."""
    data = (8 << 20).to_bytes(4, "big") + bytes(8 << 20)
    protocol = Kafka()
    for at in range(0, len(data), 1 << 16):
        piece = data[at : at + (1 << 16)]
        [step] = protocol.replies(piece)
        assert isinstance(step, Pass)
        assert step.data is piece


@given(st.data())
def test_any_chunking(data: st.DataObject) -> None:
    """How the bytes are cut into chunks changes neither the steps that say something nor the bytes."""
    picks = data.draw(st.lists(st.sampled_from(EVERY), max_size=5))
    frames, answers = b"", b""
    for number, (api, version, _, values, _) in enumerate(pick.values for pick in picks):
        frames += request(api, version, number, **values) + request(3, 9, number + 100)  # type: ignore[arg-type]
        answers += reply(api, version, data.draw(st.sampled_from((0, 7, 29))), number)  # type: ignore[arg-type]
    seed, most = data.draw(st.integers(0, 1 << 30)), data.draw(st.integers(1, 300))
    assert told(fed(Kafka(), frames, answers, seed, most)) == told(fed(Kafka(), frames, answers, 0, 1 << 20))


@given(st.binary(), st.binary(), st.integers(0, 1 << 30), st.booleans())
def test_any_bytes(requests: bytes, replies: bytes, seed: int, understood: bool) -> None:  # noqa: FBT001
    """Whatever the bytes are, they go through unchanged and nothing is raised."""
    begin = request(0, 10, 0, **PRODUCE) if understood else b""
    fed(Kafka(), begin + requests, replies, seed)


@dataclass
class Recorded:
    """What real clients did through a watcher: their effects by chapter, and the bytes of their connections."""

    effects: dict[str, list[tuple[str, str]]]
    contents: dict[str, list[bytes]]
    not_understood: set[str]
    said_raw: list[Raw]
    torn: list[bytes]
    consumed: list[bytes]
    traffic: list[tuple[bytes, bytes]]


CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


@pytest.fixture(scope="module")
def recorded(onecharge: Session) -> Iterator[Recorded]:
    """Producers of every kind and consumers of both, through a watcher."""
    with onecharge.lane(topics={"t": 2}) as lane:
        spare = onecharge.services.kafka.spare.pop()
        with Watcher(spare.advertised.number, spare.listens.number, Kafka) as watcher:
            yield record(watcher, spare.advertised.address, lane.topics["t"])
        onecharge.services.kafka.spare.append(spare)


def record(watcher: Watcher, address: str, topic: str) -> Recorded:
    """Let the clients work, one after the other."""
    known: dict[str, Any] = {"bootstrap.servers": address, "linger.ms": 50}
    chapters: dict[str, int] = {}
    for codec in CODECS:
        chapters[codec] = len(watcher.effects)
        produce({**known, "compression.type": codec}, topic, codec)
    chapters["acks=0"] = len(watcher.effects)
    produce({**known, "acks": 0}, topic, "acks=0")
    unanswered = chapters["acks=0"]  # its client does not wait for anybody, so we have to
    wait_until("all of acks=0 to pass", lambda: _keys(watcher, unanswered) >= 50, Deadline(20))
    chapters["idempotent"] = len(watcher.effects)
    produce({**known, "enable.idempotence": True}, topic, "idempotent")
    chapters["transactional"] = len(watcher.effects)
    transact({**known, "transactional.id": topic}, topic)
    consumed: list[bytes] = []
    for protocol in ("classic", "consumer"):
        chapters[protocol] = len(watcher.effects)
        consumed += consume(
            {"bootstrap.servers": address, "group.id": topic + protocol, "group.protocol": protocol}, topic
        )
    ends = [*list(chapters.values())[1:], len(watcher.effects)]
    parts = {name: slice(start, end) for (name, start), end in zip(chapters.items(), ends, strict=True)}
    outcomes = watcher.outcomes()
    return Recorded(
        {name: outcomes[part] for name, part in parts.items()},
        {name: [c for _, one in watcher.effects[part] for c in one.contents] for name, part in parts.items()},
        {name for one in watcher.connections for name in cast("Kafka", one.protocol).not_understood},
        [step for one in watcher.connections for step in one.steps if isinstance(step, Raw)],
        watcher.torn,
        consumed,
        [(bytes(one.requests), bytes(one.replies)) for one in watcher.connections],
    )


def _keys(watcher: Watcher, start: int) -> int:
    return sum(piece.count(b"acks=0-") for _, effect in watcher.effects[start:] for piece in effect.contents)


def produce(settings: dict[str, Any], topic: str, name: str) -> None:
    """Have fifty messages delivered."""
    errors: list[Any] = []
    producer = Producer(settings)
    for number in range(50):
        value = f"{name} {number} " + "ab" * (number * 10)
        producer.produce(topic, value, f"{name}-{number:03}", on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(20) == 0
    assert errors == [None] * 50


def transact(settings: dict[str, Any], topic: str) -> None:
    """A transaction with offsets that is committed, then one that is aborted."""
    producer, consumer = Producer(settings), Consumer({**settings_of_group(settings), "group.id": topic + "txn"})
    producer.init_transactions(20)
    producer.begin_transaction()
    producer.produce(topic, b"in", b"transaction-1")
    producer.send_offsets_to_transaction([TopicPartition(topic, 1, 4)], consumer.consumer_group_metadata(), 20)
    producer.commit_transaction(20)
    producer.begin_transaction()
    producer.produce(topic, b"in", b"transaction-2")
    producer.flush(20)
    producer.abort_transaction(20)
    consumer.close()


def settings_of_group(settings: dict[str, Any]) -> dict[str, Any]:
    """Those settings that consumers have too."""
    return {"bootstrap.servers": settings["bootstrap.servers"]}


def consume(settings: dict[str, Any], topic: str) -> list[bytes]:
    """Read all that was committed, commit it, leave."""
    consumer = Consumer({**settings, "auto.offset.reset": "earliest", "enable.auto.commit": False})
    consumer.subscribe([topic])
    keys: list[bytes] = []
    deadline = time.monotonic() + 30
    while len(keys) < 50 * 7 + 1 and time.monotonic() < deadline:
        message = consumer.poll(0.2)
        if message is not None and message.error() is None:
            keys.append(bytes(message.key() or b""))
    consumer.commit(asynchronous=False)
    consumer.close()
    return keys


def test_real_transparency(recorded: Recorded) -> None:
    """Real clients work through the protocol, which passes every byte and understands every frame."""
    assert not recorded.torn
    assert not recorded.said_raw
    assert not recorded.not_understood
    expected = [f"{name}-{number:03}".encode() for name in (*CODECS, "acks=0", "idempotent") for number in range(50)]
    assert sorted(recorded.consumed) == sorted([*expected, b"transaction-1"] * 2)


@pytest.mark.parametrize("name", [*CODECS, "acks=0", "idempotent"])
def test_real_producers(recorded: Recorded, name: str) -> None:
    """Whatever the compression, each record of a real producer is in its frame's contents."""
    outcome = "" if name == "acks=0" else "done"
    assert set(recorded.effects[name]) == {("kafka.produce", outcome)}
    together = b"".join(recorded.contents[name])
    for number in range(50):
        assert together.count(f"{name}-{number:03}".encode()) == 1
        assert f"{name} {number} {'ab' * (number * 10)}\0".encode() in together  # there are no headers


def test_real_transactions(recorded: Recorded) -> None:
    """A transactional producer's effects are all seen, in order, with its keys and its offsets."""
    sites = ["init_producer_id", "produce", "txn_offset_commit", "commit_transaction", "produce", "abort_transaction"]
    seen = [effect for effect in recorded.effects["transactional"] if effect[1] != "refused"]  # loading coordinators
    assert sorted(seen[:3]) == sorted((f"kafka.{site}", "done") for site in sites[:3])
    assert seen[3:] == [(f"kafka.{site}", "done") for site in sites[3:]]
    for ending in (b"transaction-1\4in\0", b"transaction-2\4in\0", b":1:4"):
        assert len([piece for piece in recorded.contents["transactional"] if piece.endswith(ending)]) == 1


@pytest.mark.parametrize("name", ["classic", "consumer"])
def test_real_consumers(recorded: Recorded, name: str) -> None:
    """A consumer of either group protocol commits its offsets and leaves."""
    assert recorded.effects[name] == [("kafka.offset_commit", "done"), ("kafka.leave_group", "done")]
    ends = [piece.split(b":") for piece in recorded.contents[name] if piece.count(b":") == 2]
    assert len(ends) == 2
    assert sum(int(end) for _, _, end in ends) >= 50 * 7 + 1  # markers of transactions have offsets too


@pytest.mark.slow
def test_fuzz(recorded: Recorded) -> None:
    """Ten million bytes of mutated conversations, real and made, and of noise go through unchanged, read or not."""
    made = [
        (request(api, version, **values), reply(api, version, error))
        for api, values in [*((api, values) for api, _, values, _ in EFFECTS), *NO_EFFECTS, (10, {}), (60, {})]
        for version in versions(api)
        for error in (0, 7, 29)
    ]
    topics = [{"topic": "t", "topic_id": TOPIC, "partitions": [{"records": RECORDS}, {"records": LZ4 * 3}]}]
    made += [(request(1, version), reply(1, version, 0, responses=topics)) for version in versions(1)] * 9
    real = [one for one in recorded.traffic if len(one[0]) + len(one[1]) < 200_000]  # others are one large Fetch

    def conversation(dice: random.Random) -> tuple[bytes, bytes]:
        if dice.random() < 0.05:
            return dice.randbytes(dice.randint(1, 3000)), dice.randbytes(dice.randint(1, 3000))
        requests, replies = dice.choice(real)
        if dice.random() < 0.8:
            pairs = dice.choices(made, k=dice.randint(1, 300))
            ids = [number.to_bytes(4, "big") for number in range(len(pairs))]
            requests = b"".join(one[:8] + i + one[12:] for (one, _), i in zip(pairs, ids, strict=True))
            replies = b"".join(one[:4] + i + one[8:] for (_, one), i in zip(pairs, ids, strict=True))
        if dice.random() < 0.5:
            return requests, replies
        return fuzzing.mutated(requests, dice), fuzzing.mutated(replies, dice)

    asked: Counter[bool] = Counter()

    def wanted(piece: bytes) -> bool:
        asked[b"order" in piece] += 1
        return True

    looks = itertools.cycle((None, wanted))
    began = time.monotonic()
    counted, total, said = fuzzing.fuzz(lambda: Kafka(wanted=next(looks)), conversation, 10_000_000)
    print(f"{counted / 1e6:.1f} of {total / 1e6:.1f} MB, {said} steps, {asked}, {time.monotonic() - began:.1f} s")  # noqa: T201
    assert said > 20_000
    assert asked[True] > 5_000
