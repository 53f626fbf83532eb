"""Names of topics and groups, and what Kafka clients are told.

Every event is keyed by its order_id, so one order's events share a partition and stay in order. That holds only if all
producers map keys to partitions alike and never reorder on a retry: librdkafka's defaults do neither. What differs from
its defaults here says why, and a test pins it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import Consumer

    from pipeline.settings import ConsumerSettings, Kafka, Namespaced

ORDERS = "orders"
PROGRESS = "progress"  # how far a relay with transactions has come; one for each slot, only the last word counts
DEAD, RETRY = "dead", "retry"  # what a group could not handle, and what comes back from there; one each for each group
# When made. More of them later: orders under way go on in another partition.
PARTITIONS = {ORDERS: 12, PROGRESS: 1, DEAD: 12, RETRY: 12}
TOPIC_CONFIG = {PROGRESS: {"cleanup.policy": "compact"}, DEAD: {"retention.ms": "-1"}}  # until somebody has looked

Config: TypeAlias = "dict[str, str | float | bool | Callable[[KafkaError], None]]"


def full_name(settings: Namespaced, name: str) -> str:
    """The name of a topic or group as Kafka knows it."""
    return f"{settings.namespace}.{name}" if settings.namespace else name


def producer_config(settings: Kafka) -> Config:
    """For a producer whose delivery reports can be believed."""
    return {
        **client_config(settings),
        "partitioner": "murmur2_random",  # as Java does; the default, CRC32, sends a key to another partition than Java
        "enable.idempotence": True,  # without it a lost reply duplicates and a retried batch overtakes its neighbour
        "acks": "all",  # a report of success then survives the loss of the leader
        "linger.ms": 0,  # the relay hands over whole batches: waiting for more to come only adds latency
        "message.timeout.ms": 8_000,  # the default, five minutes, hides an outage that long, and an orderly end waits
    }


def consumer_config(settings: ConsumerSettings, group: str) -> Config:
    """For a member of `group` (its full name) that commits an offset only after the effect is durable."""
    heartbeat_ms = max(settings.session_timeout_ms // 10, 10)
    config: Config = {
        **client_config(settings),
        "group.id": group,
        "group.protocol": "classic",  # lets a killed static member return at once; KIP-848 refuses it
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": heartbeat_ms,  # members learn of a rebalance by it
        # librdkafka has no timer for heartbeats: they go out when its main thread wakes for something else, which in a
        # quiet group is once a second. This wakes it in time for a session shorter than that.
        "topic.metadata.refresh.interval.ms": heartbeat_ms,
        "auto.offset.reset": "earliest",  # the default, latest, skips what was published before a group's first start
        "enable.auto.commit": False,  # the clock knows nothing about our effects
        "enable.auto.offset.store": False,  # likewise: an offset counts when we say so, not when it was handed to us
        "fetch.wait.max.ms": 25,  # one fetch at a time: the partition known last waits this long for its first
        "fetch.error.backoff.ms": 50,  # the default, 500 ms, is a pause after each broker restart
    }
    if settings.group_instance_id is not None:
        config["group.instance.id"] = settings.group_instance_id
    return config


def group_config(settings: ConsumerSettings, group: str) -> Config:
    """As `consumer_config`; who is not concerned by a rebalance goes on working during it."""
    return consumer_config(settings, group) | {"partition.assignment.strategy": "cooperative-sticky"}


def reader_config(settings: Kafka) -> Config:
    """For who reads a topic to its end, as far as that is committed, and belongs to no group."""
    return {
        **client_config(settings),
        "group.id": "nobody",  # has to be there, and is never used
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.wait.max.ms": 25,  # the end is seen by a fetch that finds nothing; the default waits 500 ms for that
    }


def client_config(settings: Kafka) -> dict[str, str | int | float | bool]:
    """For every client."""
    return {
        "bootstrap.servers": settings.kafka_bootstrap_servers,
        "reconnect.backoff.ms": 20,  # part of every start: a static member is back in 25 ms, with the default in 70
        "reconnect.backoff.max.ms": 500,  # a broker restarts in 2 s; the default would let us miss it for 10 s
        # The default, 60 s, is how long a reply lost on a live connection would stall us.
        "socket.timeout.ms": int(1000 * settings.silence_s),
        "socket.nagle.disable": True,  # small requests, each waited for
        "topic.metadata.refresh.fast.interval.ms": 50,  # after a leader is lost
        # A lone broker that is back from a freeze says for a moment that there is no broker at all, and is dropped. The
        # default waits five minutes before it asks the bootstrap servers again, and a commit waits with it.
        "metadata.recovery.rebootstrap.trigger.ms": 1_000,
        "log_level": 2,  # what matters reaches us as errors, and is logged once with what it means
    }


def require_topic(producer: Producer | Consumer, settings: Kafka, name: str, *, of: str | None = None) -> None:
    """Raise `Unavailable` unless the broker answers and has the topic; one that is missing is made meanwhile.

    `of` is its name in `PARTITIONS`, where that is another one.

    Asking has a second use: it makes a new idempotent producer ready in 20 ms. What is produced before its id is there
    waits for librdkafka's timer, 500 ms. The id comes behind the first answer, and before the second.
    """
    topic = full_name(settings, name)
    try:
        producer.list_topics(topic, timeout=2)
        found = producer.list_topics(topic, timeout=2).topics[topic]
    except KafkaException as why:
        raise Unavailable(broker(settings), reason(why.args[0])) from why
    if found.error is not None:
        if found.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            kind = of or name
            made = NewTopic(topic, PARTITIONS[kind], config=TOPIC_CONFIG.get(kind, {}))
            _create(settings, made)  # with as many replicas as the cluster is set to
        raise Unavailable(broker(settings), f"no topic {topic!r} yet: {reason(found.error)}")


def _create(settings: Kafka, topic: NewTopic) -> None:
    admin = AdminClient(client_config(settings))  # kept: what it was asked for ends with it
    [created] = admin.create_topics([topic], request_timeout=2).values()
    try:
        created.result()
    except KafkaException as why:
        if why.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:  # somebody else was faster
            raise Unavailable(broker(settings), f"topic {topic.topic!r} not made: {reason(why.args[0])}") from why


def broker(settings: Kafka) -> str:
    """The broker's name in messages."""
    return f"Kafka at {settings.kafka_bootstrap_servers}"


def is_fatal(error: KafkaError) -> bool:
    """Whether the client that met this error will never work again."""
    # Reported in two ways: by the flag, or, from `poll` and `produce`, by the code alone.
    return error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001 - its public name


def reason(error: KafkaError) -> str:
    """What went wrong, in a client's words."""
    return f"{error.str()} ({error.name()})"
