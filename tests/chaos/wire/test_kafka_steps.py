"""Kafka step by step: nothing is decided ahead, what is refused is answered in kind, and nobody is led astray."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer

from chaos.waiting import Deadline, wait_until
from chaos.wire.kafka import Kafka
from chaos.wire.steps import Answer, Astray, Delivered, Drop, Effect, Pass, Raw, Reply
from tests.chaos.wire.kafka_frames import batch, read_reply, reply, request, versions
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Session
    from chaos.wire.steps import Step

RECORDS = batch((b"order-1", b"paid", {}))
PRODUCE: dict[str, Any] = {
    "acks": -1,
    "topic_data": [{"name": "t", "partition_data": [{"index": 3, "records": RECORDS}, {"index": 4, "records": None}]}],
}
DELETE = {"groups_names": ["g"]}
UNKNOWN = bytes(request(3, 9, 5)[:5]) + b"\xc8" + bytes(request(3, 9, 5)[6:])
TWO = [{"host": "here", "port": 9092}, {"node_id": 2, "host": "there", "port": 9093}]


def kinds(steps: Iterator[Step] | list[Step]) -> list[type]:
    """What they are."""
    return [type(step) for step in steps]


def fronts(host: str, port: int) -> bool:
    """The wire stands at the first of `TWO`."""
    return (host, port) == ("here", 9092)


def test_nothing_is_read_ahead() -> None:
    """While a step is present, what is behind it has neither been counted, nor read, nor found to be nonsense."""
    protocol = Kafka()
    first, second = request(42, 2, 1, **DELETE), request(42, 2, 2, **DELETE)
    steps = protocol.requests(request(3, 9, 9) * 2 + first + second + UNKNOWN + b"\xff\xff\xff\xff")
    assert protocol.outstanding == 0
    seen: list[tuple[type, int]] = []
    for step in steps:
        seen.append((type(step), protocol.outstanding))
        if isinstance(step, Effect) and step.number == 1:
            answers = [*protocol.replies(reply(42, 2, 0, 1)), *protocol.replies(reply(42, 2, 0, 2))]
            assert kinds(answers) == [Answer, Pass], "the second one is an answer to nothing yet"
            assert not protocol.not_understood
    assert seen == [(Pass, 2), (Effect, 3), (Delivered, 2), (Effect, 3), (Delivered, 3), (Pass, 4), (Raw, 0), (Pass, 0)]
    assert protocol.not_understood == {"api 200": 1}


def test_replies_are_not_read_ahead() -> None:
    """While a reply is the present step, the one behind it is not read; a request may come until it is."""
    protocol = Kafka()
    list(protocol.requests(request(42, 2, 1, **DELETE)))
    steps = protocol.replies(reply(42, 2, 0, 1) + reply(42, 2, 29, 2))
    assert next(steps) == Answer(1, "done", reply(42, 2, 0, 1))
    list(protocol.requests(request(42, 2, 2, **DELETE)))
    assert list(steps) == [Answer(2, "refused", reply(42, 2, 29, 2))]


def test_one_side_turns_raw_while_the_other_waits() -> None:
    """What was not said when the other side turned raw is only bytes at the next step, an effect's end included."""
    frame = request(42, 2, 1, **DELETE)
    for said in (1, 2):
        protocol = Kafka()
        steps = protocol.requests(frame + frame + frame[:9])
        assert kinds([next(steps) for _ in range(said)]) == [Effect, Delivered][:said]
        assert kinds(protocol.replies(b"HTTP/1.1")) == [Raw, Pass]
        assert list(steps) == [Pass(frame + frame[:9])]
        assert protocol.outstanding == 0
    protocol = Kafka()
    steps = protocol.requests(request(18, 3, 1) + frame)
    assert kinds([next(steps)]) == [Pass]
    assert kinds(protocol.replies(b"HTTP/1.1")) == [Raw, Pass]
    assert list(steps) == [Pass(frame)]


def test_what_was_kept_when_the_other_side_turned_raw() -> None:
    """Half an effect comes out with the next bytes of its client; it is never said to be overdue."""
    protocol, frame = Kafka(), request(42, 2, 1, **DELETE)
    assert list(protocol.requests(frame[:-1])) == []
    assert (protocol.kept, list(protocol.overdue()), protocol.farewell()) == (False, [], b"")
    assert kinds(protocol.replies(b"HTTP/1.1")) == [Raw, Pass]
    assert list(protocol.requests(frame[-1:])) == [Pass(frame)]


def test_outstanding() -> None:
    """Every request is outstanding until the last byte of its reply has passed, but for a produce without acks."""
    protocol = Kafka()
    unanswered = request(0, 10, 4, **{**PRODUCE, "acks": 0})
    asked = [request(18, 3, 1), request(42, 2, 2, **DELETE), request(1, 13, 3), unanswered, UNKNOWN, request(68, 0, 6)]
    assert [len(list(protocol.requests(frame))) for frame in asked] == [1, 2, 1, 2, 1, 1]
    assert protocol.outstanding == 5
    fetched = (100).to_bytes(4, "big") + (3).to_bytes(4, "big") + bytes(96)
    pieces = [reply(18, 3, 0, 1), reply(42, 2, 0, 2), fetched[:50], fetched[50:-1], fetched[-1:]]
    nobodys = reply(18, 3, 0, 77)
    counts = []
    for piece in (*pieces, nobodys, reply(3, 9, 0, 5) + reply(68, 0, 0, 6)[:-1], reply(68, 0, 0, 6)[-1:]):
        assert b"".join(step.data for step in protocol.replies(piece) if isinstance(step, Pass | Answer)) == piece
        counts.append(protocol.outstanding)
    assert counts == [4, 3, 3, 3, 2, 2, 1, 0]


def test_outstanding_counts_down_when_the_reply_has_passed() -> None:
    """While the last step of a reply is present, its request is still outstanding: the client does not have it yet."""
    protocol = Kafka()
    list(protocol.requests(request(18, 3, 1) + request(42, 2, 2, **DELETE) + request(3, 9, 3)))
    steps = protocol.replies(reply(18, 3, 0, 1) + reply(42, 2, 0, 2) + reply(3, 9, 0, 3))
    assert [(type(step), protocol.outstanding) for step in steps] == [(Pass, 3), (Answer, 2), (Pass, 1)]
    assert protocol.outstanding == 0


MIRRORED: dict[str, Any] = {"name": "t", "partitions": [{"partition_index": 3}, {"partition_index": 4}]}
REFUSABLE: list[tuple[int, dict[str, Any], int]] = [
    (0, PRODUCE, 2),
    (8, {"group_id": "g", "topics": [MIRRORED]}, 2),
    (13, {"group_id": "g", "member_id": "m", "members": [{"member_id": "m"}, {"member_id": "n"}]}, 3),
    (19, {"topics": [{"name": "t"}, {"name": "u"}]}, 2),
    (20, {"topic_names": ["t", "u"], "topics": [{"name": "t"}, {"name": "u"}]}, 2),
    (22, {"transactional_id": "x"}, 1),
    (26, {"transactional_id": "x", "committed": True}, 1),
    (28, {"group_id": "g", "transactional_id": "x", "topics": [MIRRORED]}, 2),
    (42, {"groups_names": ["g", "h"]}, 2),
    (68, {"group_id": "g", "member_id": "m", "member_epoch": -1}, 1),
    (76, {"group_id": "g", "member_id": "m", "member_epoch": -1}, 1),
    (78, {"topics": [{"partitions": [{"partition_index": 3, "acknowledgement_batches": [{}]}]}]}, 3),
    (79, {"topics": [{"partitions": [{"partition_index": 3, "acknowledgement_batches": [{}]}]}]}, 2),
    (88, {"group_id": "g", "member_id": "m", "member_epoch": -2}, 1),
]


@pytest.mark.parametrize(("api", "values", "says"), REFUSABLE)
def test_refuse(api: int, values: dict[str, Any], says: int) -> None:
    """In each version, a refusal is a reply that kio reads, with the request's own parts, and the error everywhere."""
    for version in versions(api):
        protocol, frame = Kafka(), request(api, version, 7, **values)
        steps = protocol.requests(frame + request(18, 3, 8))
        effect = next(steps)
        assert isinstance(effect, Effect)
        dropped, answer = protocol.refuse(effect, "NOT_COORDINATOR")
        assert dropped == Drop(frame)
        assert isinstance(answer, Reply)
        assert protocol.outstanding == 0
        correlation, entity = read_reply(api, version, answer.data)
        assert correlation == 7
        assert codes(entity) == [16] * (1 if api == 13 and version < 3 else says)
        for theirs in ("index=3", "index=4") if "index': 4" in repr(values) else ():
            assert theirs in repr(entity)
        assert list(steps) == [Pass(request(18, 3, 8))], "it is not delivered"
        assert kinds(protocol.replies(reply(18, 3, 0, 8) + reply(api, version, 0, 7))) == [Pass], "nothing is awaited"
        assert not protocol.not_understood


def codes(entity: Any) -> list[int]:
    """All error codes in it."""
    text = repr(entity).replace("config_error_code=0", "")  # is about no error of this request
    return [int(code) for code in re.findall(r"error_code=(?:<ErrorCode\.\w+: )?(\d+)", text)]


def test_refusals_name_what_was_asked() -> None:
    """A refusal repeats names, ids of topics, members and groups from the request."""
    expected = {0: "'t'", 8: "'t'", 13: "'n'", 19: "'u'", 20: "'u'", 28: "'t'", 42: "'h'", 68: "'m'", 88: "'m'"}
    for api, values, _ in REFUSABLE:
        if api in expected:
            version = {0: 10, 8: 9}.get(api, versions(api)[-1])
            protocol = Kafka()
            effect = next(protocol.requests(request(api, version, 7, **values)))
            assert isinstance(effect, Effect)
            _, answer = protocol.refuse(effect, "REBALANCE_IN_PROGRESS")
            assert isinstance(answer, Reply)
            assert expected[api] in repr(read_reply(api, version, answer.data)[1])


def test_what_cannot_be_refused() -> None:
    """An unknown error, an effect without a reply, or one that has its reply, is said; nothing has changed then."""
    protocol = Kafka()
    effect, _ = protocol.requests(request(0, 10, 7, **PRODUCE))
    silent, _ = protocol.requests(request(0, 10, 7, **{**PRODUCE, "acks": 0}))
    assert isinstance(effect, Effect)
    assert isinstance(silent, Effect)
    for error in ("NONE", "503", "not_coordinator", ""):
        with pytest.raises(ValueError, match=r"cannot be said to kafka\.produce; any .* such as NOT_COORDINATOR"):
            protocol.refuse(effect, error)
    with pytest.raises(ValueError, match="acks=0"):
        protocol.refuse(silent, "NOT_COORDINATOR")
    assert protocol.outstanding == 1
    assert kinds(protocol.replies(reply(0, 10, 0, 7))) == [Answer]
    with pytest.raises(ValueError, match="effect 1: it is over"):
        protocol.refuse(effect, "NOT_COORDINATOR")


ASTRAY: list[tuple[int, range, str, dict[str, Any], dict[str, Any]]] = [
    (3, range(14), "Metadata", {}, {"brokers": TWO}),
    (10, range(4), "FindCoordinator", {}, TWO[1]),
    (10, range(4, 7), "FindCoordinator", {}, {"coordinators": TWO}),
    (60, range(3), "DescribeCluster", {}, {"brokers": TWO}),
    (0, range(10, 14), "Produce", PRODUCE, {"node_endpoints": TWO}),
    (78, range(1, 3), "ShareFetch", REFUSABLE[11][1], {"node_endpoints": TWO}),
    (79, range(1, 3), "ShareAcknowledge", REFUSABLE[12][1], {"node_endpoints": TWO}),
]


@pytest.mark.parametrize(("api", "range_", "name", "asked", "named"), ASTRAY)
def test_astray(api: int, range_: range, name: str, asked: dict[str, Any], named: dict[str, Any]) -> None:
    """A reply that names a broker elsewhere is said to, and is the last of the connection; fronted ones pass."""
    for version in range_:
        frame = request(api, version, 7, **asked)
        before, answer = reply(18, 3, 0, 6), reply(api, version, 0, 7, **named)
        protocol = Kafka(fronts)
        list(protocol.requests(request(18, 3, 6) + frame))
        assert list(protocol.replies(before + answer[:-1])) == [Pass(before)]
        reason = f"the {name} reply names broker there:9093, where the wire does not stand"
        assert list(protocol.replies(answer[-1:] + before)) == [Astray(reason)]
        assert [*protocol.replies(before), *protocol.requests(frame), *protocol.replies(b"")] == []

        everywhere = Kafka(lambda host, port: (host, port) in {("here", 9092), ("there", 9093)})
        list(everywhere.requests(frame))
        [step] = everywhere.replies(answer)
        assert isinstance(step, Pass | Answer)
        assert step.data == answer
        assert (everywhere.outstanding, bool(everywhere.not_understood)) == (0, False)


def test_astray_while_the_other_side_waits() -> None:
    """What the client sent and was not said yet goes nowhere once it would be led astray."""
    protocol, delete = Kafka(fronts), request(42, 2, 2, **DELETE)
    steps = protocol.requests(request(3, 9, 7) + delete + delete)
    assert kinds([next(steps), next(steps)]) == [Pass, Effect]
    assert kinds(protocol.replies(reply(3, 9, 0, 7, brokers=TWO))) == [Astray]
    assert list(steps) == []


def test_no_broker_is_nowhere() -> None:
    """A coordinator that there is none of, or no broker at all, leads nobody astray."""
    for version in versions(10):
        protocol = Kafka(fronts)
        list(protocol.requests(request(10, version, 7)))
        nobody = {"host": "", "port": -1}
        assert kinds(protocol.replies(reply(10, version, 15, 7, coordinators=[nobody], **nobody))) == [Pass]


def test_names_that_cannot_be_read() -> None:
    """A reply that may name brokers, and is malformed or of a version that nobody knows, passes and is counted."""
    protocol = Kafka(fronts)
    newer = bytearray(request(3, 9, 8))
    newer[7] = 99
    list(protocol.requests(request(3, 9, 7) + bytes(newer)))
    broken = b"\0\0\0\x06\0\0\0\7\xff\xff"
    answer = reply(3, 9, 0, 8, brokers=TWO)
    assert (
        b"".join(step.data for step in protocol.replies(broken + answer) if isinstance(step, Pass)) == broken + answer
    )
    assert protocol.not_understood == {"metadata v99": 1, "reply to metadata v9, malformed": 1}


REFUSED = {
    "kafka.produce": "NOT_LEADER_OR_FOLLOWER",
    "kafka.offset_commit": "COORDINATOR_LOAD_IN_PROGRESS",
    "kafka.init_producer_id": "COORDINATOR_LOAD_IN_PROGRESS",
    "kafka.commit_transaction": "CONCURRENT_TRANSACTIONS",
}


@pytest.mark.slow
def test_real_clients_are_refused(onecharge: Session) -> None:
    """A real client believes the first refusal of each kind, tries again, and what it does is done once."""
    seen: list[str] = []

    def refuses(effect: Effect) -> str:
        seen.append(effect.site)
        return REFUSED.get(effect.site, "") if seen.count(effect.site) == 1 else ""

    with onecharge.lane(topics={"t": 1}) as lane:
        spare, topic = onecharge.services.kafka.spare.pop(), lane.topics["t"]
        with Watcher(spare.advertised.number, spare.listens.number, Kafka, refuses) as watcher:
            address = {"bootstrap.servers": spare.advertised.address}
            producer = Producer({**address, "transactional.id": topic, "retry.backoff.ms": 20})
            producer.init_transactions(20)
            producer.begin_transaction()
            producer.produce(topic, b"paid", b"order-1")
            producer.commit_transaction(20)
            consumer = Consumer(
                {**address, "group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False}
            )
            consumer.subscribe([topic])
            message = wait_until("the message", lambda: consumer.poll(0.2), Deadline(20))
            assert message is not None
            assert message.key() == b"order-1"
            consumer.commit(message=message, asynchronous=False)
            assert consumer.poll(0.5) is None
            consumer.close()
            del producer  # it would look for its broker
        onecharge.services.kafka.spare.append(spare)
    assert not watcher.torn
    refused = [step for one in watcher.connections for step in one.steps if isinstance(step, Reply)]
    assert len(refused) == len(REFUSED)
    done = [site for site, outcome in watcher.outcomes() if outcome == "done"]
    assert {site: done.count(site) for site in REFUSED} == dict.fromkeys(REFUSED, 1)
