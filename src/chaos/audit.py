"""Whether the wire saw everything: what the servers hold, counted without it, against what it saw.

A denominator is worth what was looked at. While a workload is recorded, an `Audit` counts on its own what really came
to be, and each thing must be explained by an effect that the wire has named:

=================== ======================================================= =========================================
where               counted by                                              explained by
=================== ======================================================= =========================================
Postgres            a logical slot: committed transactions that changed     the transaction's id, which the wire asked
                    rows of the lane's database                             for before it let the commit through
Kafka, messages     the ends of the lane's topics, before and after         the offsets in the replies to produces
Kafka, offsets      what each group has committed there, before and after   the offsets in the commits
HTTP services       the ledgers of trusted services that workers are told,  requests to that service about that key
                    key by key
=================== ======================================================= =========================================

What nothing explains is a hole: a worker that went around the wire, or a request that was taken for something else.
What was seen and left nothing behind is none: a transaction may have been refused or have changed no row.

Evidence is text: ``xid:7``, ``log:topic/0:3-5``, ``sent:topic/0:2`` (no reply says where), ``offset:group:topic/0:6``,
``http:127.0.0.1:8001``. Changes of schema, sequences, large objects and unlogged tables are not in the slot's stream.
"""

from __future__ import annotations

import contextlib
import re
from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from chaos.history import Asked, Named
from chaos.services.clients import confluent_kafka, psycopg
from chaos.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from chaos.crew import Crew
    from chaos.drill import Verdict
    from chaos.lane import Lane

_PLUGIN = "test_decoding"
_SLOT_S = 10
_READ_S = 10.0
_SOME = 3  # of many holes of a kind


class Audit:
    """See the module's docstring. It begins when it is entered; `holes` says what was found then."""

    def __init__(self, lane: Lane, crew: Crew) -> None:
        self._lane, self._crew = lane, crew
        self._slot = f"{lane.name}_audit"
        self._seen: list[messages.Seen] = []
        self._evidence: list[str] = []
        self._session: Any = None
        self._unable = ""
        self.counted: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._crew.overhear = self._overhear
        try:
            self._own = len(self._lane.evidence)
            self._open_slot()
            self._ends, self._commits = self._log_ends(), self._committed()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._crew.overhear = lambda _event: None
        if self._session is not None:
            self._session.close()  # and with it goes the slot

    def _open_slot(self) -> None:
        """A slot of this session's own, which goes when the session does, however that ends."""
        if not self._lane.postgres:
            return
        client = psycopg()
        self._session = client.connect(self._lane.postgres, autocommit=True, application_name="onecharge audit")
        self._session.execute(f"SET statement_timeout = '{_SLOT_S}s'")  # an open transaction anywhere delays a slot
        try:
            self._session.execute("SELECT pg_create_logical_replication_slot(%s, %s, true)", [self._slot, _PLUGIN])
        except client.Error as error:
            why = str(error).partition("\n")[0]
            self._unable = (
                f"the database cannot be audited: {why}. It takes wal_level = logical, the plugin {_PLUGIN}, a free "
                "replication slot and a user who may use it, and no transaction that stays open"
            )

    def holes(self, verdicts: Iterable[Verdict]) -> list[str]:
        """What happened since the beginning and no effect explains; `verdicts` are of the drills since then."""
        found = [*self._transactions(), *self._messages(), *self._offsets(), *self._records(verdicts)]
        return [f"audit: {one}" for one in found]

    # -- what the wire has seen ------------------------------------------------------------------------------------

    def _overhear(self, event: messages.Event) -> None:
        """In the hub's thread."""
        if isinstance(event, messages.Seen):
            self._seen.append(event)
        if isinstance(event, messages.Seen | messages.Answered):
            self._evidence += event.evidence

    def _explained(self, kind: str) -> list[str]:
        """The evidence of one kind, without its name; the wire is asked something so that all was heard."""
        self._lane.links.wire.do(messages.Count)
        evidence = [*self._evidence, *self._lane.evidence[self._own :]]
        return [text.removeprefix(kind) for text in evidence if text.startswith(kind)]

    # -- Postgres --------------------------------------------------------------------------------------------------

    def _transactions(self) -> Iterator[str]:
        if self._session is None or self._unable:
            yield from [self._unable] if self._unable else []
            return
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        changes = "SELECT xid::text, data FROM pg_logical_slot_get_changes(%s, NULL, NULL)"
        for xid, data in self._session.execute(changes, [self._slot]):
            change = re.match(r"table ([^:]+): (\w+):", data)
            if change is not None:
                found[xid][f"{change[2]} {change[1]}"] += 1
        self.counted["transactions"] += len(found)
        explained = set(self._explained("xid:"))
        unasked = self._unasked()
        for xid in sorted(found.keys() - explained, key=int):
            if unasked > 0:  # what commits as it arrives could not be asked for its id
                unasked -= 1
                continue
            done = ", ".join(f"{count} {what}" for what, count in found[xid].items())
            yield f"transaction {xid} was committed and no effect explains it: {done}"

    def _unasked(self) -> int:
        return sum(
            "/postgres." in event.points[0] and not any(text.startswith("xid:") for text in event.evidence)
            for event in self._seen
        )

    # -- Kafka -----------------------------------------------------------------------------------------------------

    def _log_ends(self) -> dict[str, int]:
        lane, ends = self._lane, {}
        for topic in lane.topics if lane.kafka else ():
            latest = dict.fromkeys(lane.partitions(topic), confluent_kafka().admin.OffsetSpec.latest())
            for partition, end in lane.kafka_admin.list_offsets(latest).items():
                ends[f"{partition.topic}/{partition.partition}"] = end.result().offset
        return ends

    def _messages(self) -> Iterator[str]:
        explained: defaultdict[str, set[int]] = defaultdict(set)
        for text in self._explained("log:"):
            partition, _, offsets = text.rpartition(":")
            first, last = map(int, offsets.split("-"))
            explained[partition] |= set(range(first, last + 1))
        unplaced: Counter[str] = Counter()
        for text in self._explained("sent:"):
            partition, _, count = text.rpartition(":")
            unplaced[partition] += int(count)
        for partition, end in self._log_ends().items():
            written = set(range(self._ends.get(partition, 0), end))
            self.counted["messages"] += len(written)
            holes = self._real(partition, written - explained[partition])[unplaced[partition] :]
            if holes:
                yield f"{partition} has messages that no produce explains, at offset {_some(holes)}"

    def _real(self, partition: str, offsets: set[int]) -> list[int]:
        """Those of the offsets at which there is a message; the ends of transactions take some as well."""
        if not offsets:
            return []
        kafka = confluent_kafka()
        topic, _, number = partition.rpartition("/")
        settings: dict[str, str | int | bool] = {
            "bootstrap.servers": self._lane.kafka,
            "group.id": f"{self._lane.name}.audit",
        }
        settings |= {
            "enable.partition.eof": True,
            "enable.auto.commit": False,
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
        consumer: Any = kafka.Consumer(settings)
        found = []
        try:
            consumer.assign([kafka.TopicPartition(topic, int(number), min(offsets))])
            while (message := consumer.poll(_READ_S)) is not None and message.error() is None:
                if message.offset() in offsets:
                    found.append(message.offset())
        finally:
            consumer.close()
        return found

    def _committed(self) -> dict[tuple[str, str], int]:
        """What each group of the cluster has committed in the lane's topics."""
        lane = self._lane
        if not (lane.kafka and lane.topics):
            return {}
        kafka = confluent_kafka()
        partitions = [one for topic in lane.topics for one in lane.partitions(topic)]
        committed: dict[tuple[str, str], int] = {}
        for group in [one.group_id for one in lane.kafka_admin.list_consumer_groups().result().valid]:
            request = kafka.ConsumerGroupTopicPartitions(group, partitions)
            [answered] = lane.kafka_admin.list_consumer_group_offsets([request]).values()
            with contextlib.suppress(kafka.KafkaException):  # it has just been deleted, or is of a kind without offsets
                places = {f"{one.topic}/{one.partition}": one.offset for one in answered.result().topic_partitions}
                committed |= {(group, place): offset for place, offset in places.items() if offset >= 0}
        return committed

    def _offsets(self) -> Iterator[str]:
        explained = set(self._explained("offset:"))
        for (group, partition), offset in self._committed().items():
            if self._commits.get((group, partition)) != offset:
                self.counted["committed offsets"] += 1
                if f"{group}:{partition}:{offset}" not in explained:
                    yield f"group {group} stands at {offset} in {partition}, and no commit of an offset explains it"

    # -- HTTP services -----------------------------------------------------------------------------------------------

    def _records(self, verdicts: Iterable[Verdict]) -> Iterator[str]:
        for verdict in verdicts:
            aliases = {event.key: event.alias for event in verdict.history if isinstance(event, Named)}
            asked = [event for event in verdict.history if isinstance(event, Asked)]
            for service in self._lane.services.values():
                if not self._lane.links.stands_before(service.url):
                    continue  # nobody asks it: what it records it has from elsewhere
                to = f"http:{service.url.rpartition('/')[2]}"
                requests = [event.points for event in asked if to in event.evidence]
                for key in verdict.keys:
                    records = len(service.ledger.of(key))
                    self.counted["ledger records"] += records
                    about = f"[{aliases[key]}]#"  # what holds no key at all may be about any
                    seen = sum(len(points) == 1 or any(about in point for point in points) for points in requests)
                    if records > seen:
                        yield f"{service.ledger.path.name} has {records} records of {key}, for {seen} requests seen"


def _some(offsets: list[int]) -> str:
    more = f" and {len(offsets) - _SOME} more" if len(offsets) > _SOME else ""
    return ", ".join(map(str, offsets[:_SOME])) + more
