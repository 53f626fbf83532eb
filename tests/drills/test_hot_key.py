"""One customer has four fifths of the orders: which keys spread them over partitions, and which keep each order whole.

The same events go to a topic for each way to key them, by a producer as the pipeline has it. Every topic is read back,
and what is judged is what was there. How full the partitions were is drawn in `PICTURE`, beside the other reports.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

import pytest
from confluent_kafka import Consumer, Producer

from chaos.waiting import Deadline, wait_until
from pipeline.publish.outbox import is_proof
from pipeline.route.keys import salted
from pipeline.route.topics import producer_config, require_topic
from pipeline.settings import Kafka
from tests.bars import Chart, page

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from confluent_kafka import KafkaError, Message

    from chaos import Lane, Session

pytestmark = pytest.mark.drills

WHALE, SHARE, OTHERS = "whale", 0.8, 100
ORDERS, SEQUENCE = 3_000, [1, 2]
SALTS = 64
PATIENCE_S = 30.0
PICTURE = "reports/hot-key/partitions.html"


class Event(NamedTuple):
    """An event of an order."""

    customer_id: str
    order_id: str
    seq: int


Partitions = list[list[Event]]


def by_customer(event: Event) -> str:
    """What makes a key hot."""
    return event.customer_id


def by_order(event: Event) -> str:
    """The right salt."""
    return salted(event.customer_id, event.order_id, SALTS)


def by_customer_again(event: Event) -> str:
    """A salt that is the same for all of a customer's orders."""
    return salted(event.customer_id, event.customer_id, SALTS)


def by_event(event: Event) -> str:
    """A salt of each event's own."""
    return salted(event.customer_id, f"{event.order_id}/{event.seq}", SALTS)


def by_order_changed(event: Event) -> str:
    """The right salt, of which there are twice as many when an order's second event comes."""
    return salted(event.customer_id, event.order_id, SALTS * event.seq)


class Case(NamedTuple):
    """A topic, and what its events are keyed by."""

    title: str
    partitions: int
    key: Callable[[Event], str]


CASES = {
    "customer": Case("Keyed by customer", 6, by_customer),
    "more": Case("Keyed by customer, twice the partitions", 12, by_customer),
    "wrong": Case("Wrong: salted by the customer", 6, by_customer_again),
    "salted": Case("Salted by the order", 6, by_order),
    "event": Case("Wrong: salted by the event", 6, by_event),
    "changed": Case("Wrong: another number of salts under way", 6, by_order_changed),
}
DRAWN = ("customer", "more", "wrong", "salted")


def events() -> list[Event]:
    """What happens, the same in every run: each order's events in sequence, among other orders'."""
    chance, seq = random.Random(1), Counter[str]()
    ids = [str(UUID(int=chance.getrandbits(128), version=4)) for _ in range(ORDERS)]
    owners = {order_id: WHALE if n < SHARE * ORDERS else f"customer-{n % OTHERS}" for n, order_id in enumerate(ids)}
    ids *= len(SEQUENCE)
    chance.shuffle(ids)
    told = []
    for order_id in ids:
        seq[order_id] += 1
        told.append(Event(owners[order_id], order_id, seq[order_id]))
    return told


def publish(lane: Lane, topic: str, key: Callable[[Event], str], told: Sequence[Event]) -> None:
    """Have a producer like the pipeline's put the events on a topic."""
    settings, proven = Kafka(kafka_bootstrap_servers=lane.kafka, namespace=lane.name), []
    producer = Producer(producer_config(settings))
    require_topic(producer, settings, topic)

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        proven.append(error is None and is_proof(message))

    for event in told:
        producer.produce(lane.topics[topic], json.dumps(event), key(event), on_delivery=on_delivery)
    producer.flush(PATIENCE_S)
    assert proven == [True] * len(told)


def read(lane: Lane, topic: str) -> Partitions:
    """All that is on a topic, in each partition by offset."""
    places = lane.partitions(topic)
    found: dict[int | None, list[Event]] = {place.partition: [] for place in places}
    config = {"bootstrap.servers": lane.kafka, "group.id": f"{lane.name}.reader", "auto.offset.reset": "earliest"}
    consumer = Consumer(config | {"enable.auto.commit": False})

    def whole() -> bool:
        for message in consumer.consume(1_000, timeout=0.1):
            assert message.error() is None, message.error()
            found[message.partition()].append(Event(*json.loads(message.value() or b"")))
        return [len(partition) for partition in found.values()] == ends

    with contextlib.closing(consumer):
        ends = [consumer.get_watermark_offsets(place, timeout=10)[1] for place in places]
        consumer.assign(places)
        wait_until(f"all of {topic}", whole, Deadline(PATIENCE_S))
    return list(found.values())


@pytest.fixture(scope="module")
def topics(onecharge: Session) -> Mapping[str, Partitions]:
    """What is on the topic of each case, which is every event once."""
    told = events()
    with onecharge.lane(topics={name: case.partitions for name, case in CASES.items()}) as lane:
        for name, case in CASES.items():
            publish(lane, name, case.key, told)
        found = {name: read(lane, name) for name in CASES}
    for name, partitions in found.items():
        assert sorted(itertools.chain(*partitions)) == sorted(told), name
    return found


@pytest.fixture(scope="module")
def charts(onecharge: Session, topics: Mapping[str, Partitions]) -> Mapping[str, Chart]:
    """How full the partitions are, by whom; kept as a page."""
    made = {}
    for name, partitions in topics.items():
        whales = [sum(event.customer_id == WHALE for event in partition) for partition in partitions]
        rest = [len(partition) - hot for partition, hot in zip(partitions, whales, strict=True)]
        made[name] = Chart(CASES[name].title, list(zip(whales, rest, strict=True)))
    file = onecharge.output / PICTURE
    file.parent.mkdir(parents=True, exist_ok=True)
    title = "One customer has 80 % of the orders: events in each partition"
    drawn = [made[name] for name in DRAWN]
    file.write_text(page(title, "the one customer", f"{OTHERS} others", drawn), encoding="utf-8")
    return made


def parted(partitions: Partitions) -> set[str]:
    """The orders whose events are not in one partition, in sequence."""
    ids: set[str] = set()
    whole: set[str] = set()
    for partition in partitions:
        seqs = defaultdict(list)
        for event in partition:
            seqs[event.order_id].append(event.seq)
        ids |= seqs.keys()
        whole |= {order_id for order_id, found in seqs.items() if found == SEQUENCE}
    return ids - whole


@pytest.mark.parametrize("name", ["customer", "more", "wrong"])
def test_one_partition_is_pinned(charts: Mapping[str, Chart], name: str) -> None:
    """Keyed by customer, salted by the customer or not, all of the customer's events are in one partition."""
    chart = charts[name]
    assert [hot for hot, _ in chart.partitions if hot] == [SHARE * ORDERS * len(SEQUENCE)]
    assert chart.skew == pytest.approx(SHARE * len(chart.partitions) + 1 - SHARE, rel=0.05)


def test_more_partitions_do_not_help(charts: Mapping[str, Chart]) -> None:
    """With twice the partitions the fullest has as much to do as before, but for some of the others' events."""
    assert max(charts["more"].counts) > 0.95 * max(charts["customer"].counts)


def test_salts_spread_a_customer(charts: Mapping[str, Chart]) -> None:
    """Salted by the order, the same events leave no partition with more than half above the mean."""
    assert charts["salted"].skew < 1.5


@pytest.mark.parametrize("name", ["customer", "more", "wrong", "salted"])
def test_orders_stay_whole(topics: Mapping[str, Partitions], name: str) -> None:
    """Each order's events are in one partition, in sequence."""
    assert parted(topics[name]) == set()


@pytest.mark.parametrize("name", ["event", "changed"])
def test_orders_are_parted(topics: Mapping[str, Partitions], name: str) -> None:
    """A salt of each event's own, or another number of salts under way, parts many orders from their second events."""
    assert len(parted(topics[name])) > ORDERS / 4


def test_there_is_a_picture(onecharge: Session, charts: Mapping[str, Chart]) -> None:
    """What was counted is kept as a page: the hot key, more partitions, the wrong salt, the right one."""
    kept = (onecharge.output / PICTURE).read_text(encoding="utf-8")
    for name in DRAWN:
        assert f"{charts[name].title}: {charts[name].counts}" in kept
