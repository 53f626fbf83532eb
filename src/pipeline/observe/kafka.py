"""What Kafka knows: how far each group is behind, who is in it, and what a transaction that is open holds back.

Groups are given what is committed, so their ends are in front of the first transaction that is open. Of one that hangs
they look idle; what is behind it is therefore counted, too, and its age is that of their lag.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from confluent_kafka import Consumer, IsolationLevel, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined] # as its documentation has it

from pipeline.observe.gauges import GROUPS
from pipeline.route.topics import ORDERS, RETRY, broker, client_config, full_name, reader_config, reason
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pipeline.observe.postgres import Reading
    from pipeline.settings import Kafka

    Place = tuple[str, int]  # topic and partition

PATIENCE_S = 2.0
FIRST, END = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]
NOTHING = -1  # where a group has committed nothing, Kafka says that or less
COMMITTED, ALL = IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED
TOPICS = (ORDERS, *(f"{RETRY}.{group}" for group in GROUPS))


class Behind(NamedTuple):
    """So many events wait, the first of them for so long."""

    events: int
    seconds: float


class Groups:
    """Reads them. Keeps its clients; belongs to no group, and commits nothing."""

    def __init__(self, settings: Kafka) -> None:
        self._settings = settings
        self._connect()

    def _connect(self) -> None:
        settings = self._settings
        self._admin = AdminClient(client_config(settings))
        self._reader = Consumer(reader_config(settings))
        self._reader_of_all = Consumer(reader_config(settings) | {"isolation.level": "read_uncommitted"})
        # Ask for what a group has committed, and never subscribe. The admin client's `list_consumer_group_offsets` ends
        # the process: when a coordinator says that it is none, as after it hung or was restarted, librdkafka follows a
        # null pointer (confluentinc/librdkafka issue 5040; seen in a core dump of 2.16.0).
        self._askers = {
            group: Consumer(reader_config(settings) | {"group.id": full_name(settings, group)}) for group in GROUPS
        }

    def readings(self) -> Iterator[Reading]:
        """Name, labels and value of each gauge, as they are now.

        Raises:
            Unavailable: Kafka does not answer, or not all, or not in time. What it has answered is told before.
        """
        try:
            there = self._partitions()
            for topic in TOPICS:
                yield "topic_partitions", (topic,), len(there.get(topic, ()))
            everywhere = [one for partitions in there.values() for one in partitions]
            # In this order, or what is committed meanwhile would seem to be behind the end, and what comes, held back.
            committed = {group: self._committed(group, everywhere) for group in GROUPS}
            tops = self._offsets(END, everywhere, ALL)
            firsts, ends = self._offsets(FIRST, everywhere), self._offsets(END, everywhere)
            held = {topic: self._held_back(partitions, ends, tops) for topic, partitions in there.items()}
            for topic, (events, seconds) in held.items():
                yield "held_back_events", (topic,), events
                yield "held_back_seconds", (topic,), seconds
            names = {group: full_name(self._settings, group) for group in GROUPS}
            members = self._admin.describe_consumer_groups([*names.values()], request_timeout=PATIENCE_S)
            for group, name in names.items():
                yield "consumer_members", (group,), len(members[name].result().members)
            for group in GROUPS:
                for topic in (ORDERS, f"{RETRY}.{group}"):
                    if topic in there:
                        places = [(one.topic, one.partition) for one in there[topic]]
                        at = {place: committed[group].get(place, firsts[place]) for place in places}
                        events, seconds = self._lag(at, ends)
                        yield "consumer_lag_events", (group, topic), events
                        yield "consumer_lag_seconds", (group, topic), max(seconds, held[topic].seconds)
        except KafkaException as why:
            self._connect()  # a client that has dropped the only broker there is would not come back by itself
            raise Unavailable(broker(self._settings), reason(why.args[0])) from why

    def _partitions(self) -> dict[str, list[TopicPartition]]:
        """Of the topics that there are, by their short names."""
        found = self._admin.list_topics(timeout=PATIENCE_S).topics
        return {
            name: [TopicPartition(topic, number) for number in found[topic].partitions]
            for name in TOPICS
            if (topic := full_name(self._settings, name)) in found
        }

    def _committed(self, group: str, partitions: Sequence[TopicPartition]) -> dict[Place, int]:
        """Where it has committed anything."""
        if not partitions:
            return {}
        asker = self._askers[group]
        asker.poll(0)  # what it has to say of the broker is said by its answer, too; unheard, it would pile up
        told = asker.committed(list(partitions), timeout=PATIENCE_S)
        for one in told:
            if one.error is not None:
                raise KafkaException(one.error)
        return {(one.topic, one.partition): one.offset for one in told if one.offset > NOTHING}

    def _offsets(
        self, which: OffsetSpec, partitions: Sequence[TopicPartition], isolation: IsolationLevel = COMMITTED
    ) -> dict[Place, int]:
        """The first offset of each partition, or the one behind its last."""
        asked = self._admin.list_offsets(
            dict.fromkeys(partitions, which), isolation_level=isolation, request_timeout=PATIENCE_S
        )
        return {(one.topic, one.partition): told.result().offset for one, told in asked.items()}

    def _held_back(
        self, partitions: Sequence[TopicPartition], ends: Mapping[Place, int], tops: Mapping[Place, int]
    ) -> Behind:
        """What is behind the first transaction that is open in each partition of a topic."""
        places = [(one.topic, one.partition) for one in partitions]
        behind = {place: tops[place] - ends[place] for place in places if tops[place] > ends[place]}
        waiting = _first(self._reader_of_all, [TopicPartition(*place, ends[place]) for place in behind], self._settings)
        return Behind(sum(behind[place] for place in behind if place[1] in waiting), _age(waiting))

    def _lag(self, at: Mapping[Place, int], ends: Mapping[Place, int]) -> Behind:
        behind = {place: ends[place] - at[place] for place in at}
        late = [TopicPartition(*place, at[place]) for place in at if behind[place] > 0]
        waiting = _first(self._reader, late, self._settings)
        lag = [events for (_, number), events in behind.items() if events < 0 or number in waiting]
        # A partition whose topic was made anew must not hide behind another's lag.
        return Behind(min(lag) if min(lag, default=0) < 0 else sum(lag), _age(waiting))


def _age(waiting: Mapping[int, float]) -> float:
    """Of the first, in seconds."""
    now = time.time()
    return max(0.0, now - min(waiting.values(), default=now))


def _first(reader: Consumer, places: Sequence[TopicPartition], settings: Kafka) -> dict[int, float]:
    """When the message at each of some places in a topic was written, in Unix seconds.

    A partition has none if there are only marks of transactions: they have offsets, and nobody is told of them.
    """
    if not places:
        return {}
    found: dict[int, float] = {}
    left = {place.partition for place in places}
    deadline = time.monotonic() + PATIENCE_S
    reader.assign(list(places))
    try:
        while left:
            if (message := reader.poll(max(0.0, deadline - time.monotonic()))) is None:
                raise Unavailable(broker(settings), f"{places[0].topic} could not be read in {PATIENCE_S} s")
            number = int(str(message.partition()))
            if number in left and message.error() is None:
                found[number] = message.timestamp()[1] / 1000
            left.discard(number)
            reader.pause([place for place in places if place.partition == number])  # the others' turn
    finally:
        reader.resume(list(places))  # or they would be paused when they are assigned again
        reader.unassign()
    return found
