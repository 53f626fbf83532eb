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

import math
import re
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from chaos.errors import ChaosError
from chaos.history import Named
from chaos.lane import READER
from chaos.services.clients import confluent_kafka, psycopg
from chaos.waiting import Deadline
from chaos.wire import messages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Self

    from chaos.crew import Crew
    from chaos.drill import Verdict
    from chaos.lane import Lane, Trusted

_PLUGIN = "test_decoding"
_SLOT_S = 10
_READ_S = 10.0
_PATIENCE_S, _AGAIN_S = 0.5, 0.05
_AT_ONCE = 8
_SOME = 3  # of many holes of a kind


class _Facts(NamedTuple):
    """What the servers hold: changes by transaction, ends of partitions, commits of groups, records by key."""

    transactions: dict[str, Counter[str]]
    ends: dict[str, int]
    commits: dict[tuple[str, str], int]
    records: dict[tuple[str, str], int]


class Audit:
    """See the module's docstring. It begins when it is entered; `holes` says what was found then."""

    def __init__(self, lane: Lane, crew: Crew) -> None:
        self._lane, self._crew = lane, crew
        self._slot = f"{lane.name}_audit"
        self._seen: list[messages.Seen] = []
        self._evidence: list[str] = []
        self._outcomes: dict[tuple[int, int], str] = {}
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
        self._session.execute(f"SET statement_timeout = '{_SLOT_S}s'")  # open transactions delay a slot
        try:
            self._session.execute("SELECT pg_create_logical_replication_slot(%s, %s, true)", [self._slot, _PLUGIN])
        except client.Error as error:
            why = str(error).partition("\n")[0]
            self._unable = (
                f"the database cannot be audited: {why}. It takes wal_level = logical, the plugin {_PLUGIN}, a free "
                "replication slot and a user who may use it, and no transaction that stays open"
            )

    def holes(self, verdicts: Sequence[Verdict]) -> list[str]:
        """What happened since the beginning and no effect explains; `verdicts` are of the drills since then.

        The servers are asked first. What explains their answers may still be on its way then, so nobody is accused
        before it has had time to come.
        """
        facts = _Facts(self._transactions(), self._log_ends(), self._committed(), self._records(verdicts))
        self.counted["transactions"] = len(facts.transactions)
        self.counted["messages"] = sum(end - self._ends.get(where, 0) for where, end in facts.ends.items())
        moved = {where for where, offset in facts.commits.items() if self._commits.get(where) != offset}
        self.counted["committed offsets"] = len(moved)
        self.counted["ledger records"] = sum(facts.records.values())
        deadline = Deadline(_PATIENCE_S)
        while (found := self._unexplained(facts, verdicts)) and not deadline.passed:
            self._lane.supervisor.wait_for(lambda: False, Deadline(_AGAIN_S))
        return [f"audit: {one}" for one in found] + ([self._unable] if self._unable else [])

    def _unexplained(self, facts: _Facts, verdicts: Sequence[Verdict]) -> list[str]:
        self._lane.links.wire.do(messages.Count)  # all that it had to say is heard when this is answered
        return [
            *self._odd_transactions(facts.transactions),
            *self._odd_messages(facts.ends),
            *self._odd_offsets(facts.commits),
            *self._odd_records(facts.records, verdicts),
        ]

    # -- what the wire has seen ------------------------------------------------------------------------------------

    def _overhear(self, event: messages.Event) -> None:
        """In the hub's thread."""
        if isinstance(event, messages.Seen):
            self._seen.append(event)
        if isinstance(event, messages.Answered):
            self._outcomes[event.connection, event.effect] = event.outcome
        if isinstance(event, messages.Seen | messages.Answered):
            self._evidence += event.evidence

    def _explained(self, kind: str) -> list[str]:
        """The evidence of one kind, without its name."""
        evidence = [*self._evidence, *self._lane.evidence[self._own :]]
        return [text.removeprefix(kind) for text in evidence if text.startswith(kind)]

    # -- Postgres --------------------------------------------------------------------------------------------------

    def _transactions(self) -> dict[str, Counter[str]]:
        """By transaction, what it has changed."""
        found: defaultdict[str, Counter[str]] = defaultdict(Counter)
        if self._session is not None and not self._unable:
            changes = "SELECT xid::text, data FROM pg_logical_slot_get_changes(%s, NULL, NULL)"
            for xid, data in self._session.execute(changes, [self._slot]):
                change = re.match(r"table ([^:]+): (\w+):", data)
                if change is not None:
                    found[xid][f"{change[2]} {change[1]}"] += 1
        return found

    def _odd_transactions(self, found: dict[str, Counter[str]]) -> Iterator[str]:
        odd = sorted(found.keys() - set(self._explained("xid:")), key=int)
        unasked = self._unasked()
        if odd and unasked:
            self.counted["transactions explained by their number alone"] = min(unasked, len(odd))
        for xid in odd[unasked:]:
            changed = ", ".join(f"{count} {what}" for what, count in found[xid].items())
            yield f"transaction {xid} was committed and no effect explains it: {changed}"

    def _unasked(self) -> int:
        """How many effects there were that commit as they arrive, and could not be asked for their transaction."""
        return sum(
            "/postgres." in event.points[0]
            and "/postgres.confirm" not in event.points[0]
            and not any(text.startswith("xid:") for text in event.evidence)
            and self._outcomes.get((event.connection, event.effect)) == "done"
            for event in list(self._seen)
        )

    # -- Kafka -----------------------------------------------------------------------------------------------------

    def _log_ends(self) -> dict[str, int]:
        lane, ends = self._lane, {}
        for topic in lane.topics if lane.kafka else ():
            latest = dict.fromkeys(lane.partitions(topic), confluent_kafka().admin.OffsetSpec.latest())
            for partition, end in lane.kafka_admin.list_offsets(latest).items():
                ends[f"{partition.topic}/{partition.partition}"] = end.result().offset
        return ends

    def _odd_messages(self, ends: dict[str, int]) -> Iterator[str]:
        explained: defaultdict[str, set[int]] = defaultdict(set)
        for text in self._explained("log:"):
            partition, _, offsets = text.rpartition(":")
            first, last = map(int, offsets.split("-"))
            explained[partition] |= set(range(first, last + 1))
        unplaced: Counter[str] = Counter()
        for text in self._explained("sent:"):
            partition, _, count = text.rpartition(":")
            unplaced[partition] += int(count)
        for partition, end in ends.items():
            written = set(range(self._ends.get(partition, 0), end))
            holes = self._real(partition, written - explained[partition])[unplaced[partition] :]
            if holes:
                yield f"{partition} has messages that no produce explains, at offset {_some(holes)}"

    def _real(self, partition: str, offsets: set[int]) -> list[int]:
        """Those of the offsets at which there is a message; the ends of transactions take some as well.

        Raises:
            ChaosError: the partition could not be read to its end.
        """
        if not offsets:
            return []
        kafka = confluent_kafka()
        topic, _, number = partition.rpartition("/")
        everything = {"isolation.level": "read_uncommitted", "bootstrap.servers": self._lane.kafka}
        consumer: Any = kafka.Consumer(READER | everything | {"group.id": self._slot})
        found = []
        try:
            consumer.assign([kafka.TopicPartition(topic, int(number), min(offsets))])
            while (message := consumer.poll(_READ_S)) is not None and message.error() is None:
                if message.offset() in offsets:
                    found.append(message.offset())
        finally:
            consumer.close()
        if message is None or message.error().code() != kafka.KafkaError._PARTITION_EOF:  # noqa: SLF001 - its public name
            why = "nothing came" if message is None else message.error()
            raise ChaosError(f"the audit could not read {partition} to its end: {why}")
        return found

    def _committed(self) -> dict[tuple[str, str], int]:
        """What each group of the cluster has committed in the lane's topics."""
        lane = self._lane
        if not (lane.kafka and lane.topics):
            return {}
        partitions = [one for topic in lane.topics for one in lane.partitions(topic)]
        groups = [one.group_id for one in lane.kafka_admin.list_consumer_groups().result().valid]
        with ThreadPoolExecutor(_AT_ONCE) as pool:  # who was not asked yet has to find its coordinator first
            told = dict(zip(groups, pool.map(lambda group: lane.committed(group, partitions), groups), strict=True))
        return {
            (group, f"{topic}/{number}"): offset
            for group, places in told.items()
            for (topic, number), offset in places.items()
        }

    def _odd_offsets(self, commits: dict[tuple[str, str], int]) -> Iterator[str]:
        explained = set(self._explained("offset:"))
        for (group, partition), offset in commits.items():
            moved = self._commits.get((group, partition)) != offset
            if moved and f"{group}:{partition}:{offset}" not in explained:
                yield f"group {group} stands at {offset} in {partition}, and no commit of an offset explains it"

    # -- HTTP services -----------------------------------------------------------------------------------------------

    def _records(self, verdicts: Sequence[Verdict]) -> dict[tuple[str, str], int]:
        """By service and key, how often the ledger of one that workers are told has it."""
        told = {url: service for url, service in self._services() if self._lane.links.stands_before(url)}
        return {
            (url, key): len(service.ledger.of(key))
            for url, service in told.items()
            for verdict in verdicts
            for key in verdict.keys
        }

    def _services(self) -> list[tuple[str, Trusted]]:
        return [(service.url, service) for service in self._lane.services.values()]

    def _odd_records(self, records: dict[tuple[str, str], int], verdicts: Sequence[Verdict]) -> Iterator[str]:
        began = [verdict.history[0].at for verdict in verdicts]
        for verdict, start, end in zip(verdicts, began, [*began[1:], math.inf], strict=True):
            aliases = {event.key: event.alias for event in verdict.history if isinstance(event, Named)}
            asked = [event for event in list(self._seen) if event.at >= start]
            for url, service in self._services():
                to = f"http:{url.rpartition('/')[2]}"
                requests = [event for event in asked if to in event.evidence]
                anybody = sum(
                    len(event.points) == 1 for event in requests
                )  # about no key; or late, and it is forgotten
                for key in verdict.keys:
                    about = f"[{aliases[key]}]#"
                    seen = sum(event.at < end and any(about in point for point in event.points) for event in requests)
                    if records.get((url, key), 0) > seen + anybody:
                        told = f"{records[url, key]} records of {key}, for {seen} requests seen"
                        yield f"{service.ledger.path.name} has {told}"


def _some(offsets: list[int]) -> str:
    more = f" and {len(offsets) - _SOME} more" if len(offsets) > _SOME else ""
    return ", ".join(map(str, offsets[:_SOME])) + more
