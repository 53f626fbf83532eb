"""Kills and losses, many times, and what landed: used by the tests and, with large numbers, by `benchmarks.exact`."""

from __future__ import annotations

import contextlib
import json
import random
import time
import urllib.request
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import confluent_kafka.admin
from confluent_kafka import Consumer

from chaos import Worker
from chaos.waiting import Deadline
from chaos.wire import messages
from tests.chaos.wire import exact_workers
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Lane, Session
    from chaos.workers.process import Process

SCHEMA = "CREATE TABLE landed (tag text, sender int, n int)"
SITES = {
    exact_workers.pipelined: ("postgres.write", "kafka.produce", "http.post"),
    exact_workers.one_by_one: ("postgres.commit", "kafka.produce", "http.post"),
}


@dataclass
class Landed:
    """What was found after so many kills: how often something came after a fault had fired."""

    kills: int = 0
    rows: int = 0
    messages: int = 0
    requests: int = 0
    sessions: int = 0
    effects: int = 0

    @property
    def late(self) -> int:
        """Everything that landed after its fault had fired."""
        return self.rows + self.messages + self.requests + self.sessions


def kills(session: Session, run: Callable[[], None], count: int, *, naive: bool = False) -> Landed:
    """Kill a worker that sends over four connections, at a random effect, again and again; what landed afterwards.

    A `naive` kill is what it sounds like: SIGKILL when the effect is seen, and nothing else.
    """
    dice, landed = random.Random(1), Landed(kills=count)
    at: dict[str, float] = {}
    rows: dict[str, int] = {}
    with session.lane(schema=SCHEMA, topics={"burst": 1}) as lane:
        psp = lane.trusted("sink", exact_workers.sink, ledger="sink.jsonl", key="tag")
        use_append_time(lane, "burst")
        rig = Rig(lane)
        for number in range(count):
            tag = f"tag-{number:05}"
            env = {"TAG": tag, "TOPIC": "{topics[burst]}", "HTTP_URL": psp.url}
            site, nth = dice.choice(SITES[run]), dice.randint(1, 40)
            fault = dice.choice(["crash-before", "crash-after"])
            rig.arm("" if naive else f"burst/{site}#{nth}:{fault}")
            rig.lane.links.enlist("burst.0", "burst", 0)
            process = lane.start(Worker("burst", run, env=env), wired=True)
            rig.processes["burst.0"] = process
            at[tag] = _killed(rig, process, f"burst~0/{site}#{nth}") if naive else rig.fired().at
            [(rows[tag], sessions)] = lane.execute(
                "SELECT (SELECT count(*) FROM landed WHERE tag = %s),"
                " (SELECT count(*) FROM pg_stat_activity WHERE application_name = %s)",
                (tag, tag),
            )
            landed.sessions += sessions
        rig.disarm()
        final = dict(lane.execute("SELECT tag, count(*) FROM landed GROUP BY tag"))
        landed.rows = sum(final.get(tag, 0) - rows[tag] for tag in rows)
        sent = list(produced(lane, "burst"))
        asked = [(record.key, json.loads(record.text)["at"]) for key in at for record in psp.ledger.of(key)]
        landed.messages = sum(when > at[tag] for tag, when in sent)
        landed.requests = sum(when > at[tag] for tag, when in asked)
        landed.effects = sum(final.values()) + len(sent) + len(asked)
    return landed


def _killed(rig: Rig, process: Process, point: str) -> float:
    rig.wait(point, lambda: any(point in one.points for one in rig.all(messages.Seen)))
    process.kill()
    return time.time()


def use_append_time(lane: Lane, topic: str) -> None:
    """Have the broker say when a message was appended, not the producer when it was made."""
    admin: Any = confluent_kafka.admin
    to = {"incremental_operation": admin.AlterConfigOpType.SET}
    entry = admin.ConfigEntry("message.timestamp.type", "LogAppendTime", **to)
    change = admin.ConfigResource(admin.ResourceType.TOPIC, lane.topics[topic], incremental_configs=[entry])
    for changed in lane.kafka_admin.incremental_alter_configs([change]).values():
        changed.result()


def produced(lane: Lane, topic: str) -> Iterator[tuple[str, float]]:
    """Key and time of append, in seconds, of every message of a topic."""
    settings = {"bootstrap.servers": lane.kafka, "group.id": "reader", "enable.auto.commit": False}
    consumer = Consumer(settings)
    with contextlib.closing(consumer):
        for partition in lane.partitions(topic):
            partition.offset = 0
            consumer.assign([partition])
            _, end = consumer.get_watermark_offsets(partition, timeout=10)
            deadline, at = Deadline(30), 0
            while at < end:
                message = consumer.poll(1)
                if message is None or message.error():
                    if deadline.passed:
                        raise deadline.missed("all messages", f"{at} of {end}")
                    continue
                at = int(message.offset() or 0) + 1
                yield bytes(message.key() or b"").decode(), message.timestamp()[1] / 1000


def losses(session: Session, fault: str, *, idempotence: str, count: int) -> list[int]:
    """Thirty messages, the fifteenth request broken, so many times; how many messages there were each time."""
    found: list[int] = []
    with session.lane(topics={"thirty": 1}) as lane:
        worker = Worker(
            "thirty",
            exact_workers.thirty_messages,
            http=True,
            env={"TOPIC": "{topics[thirty]}", "IDEMPOTENCE": idempotence},
        )
        rig = Rig(lane)
        process = rig.start(worker)
        lane.require_listening(worker, 0, process, Deadline(20))
        url, end = f"http://{lane.port(worker, 0).address}/", 0
        _post(url, b"warm-up")
        for number in range(count):
            before = end_offset(lane, "thirty")
            rig.arm(f"thirty/kafka.produce#15:{fault}")
            said = _post(url, f"run-{number}".encode())
            rig.fired()
            assert said == b'{"left": 0, "errors": []}', said
            end = end_offset(lane, "thirty")
            found.append(end - before)
        process.kill()
    return found


def end_offset(lane: Lane, topic: str) -> int:
    """The next offset of a topic's only partition."""
    consumer = Consumer({"bootstrap.servers": lane.kafka, "group.id": "reader"})
    with contextlib.closing(consumer):
        return int(consumer.get_watermark_offsets(lane.partitions(topic)[0], timeout=10)[1])


def _post(url: str, body: bytes) -> bytes:
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as reply:  # noqa: S310 - our own
        return bytes(reply.read())
