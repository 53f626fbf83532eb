"""`python -m pipeline rewind GROUP`: the group reads its topics from the beginning when it is there again.

For a topic that was made anew: what the group has committed is behind its end, and what comes would be skipped. Every
event is delivered once more then, and the inbox passes over what was handled. Kafka refuses while the group has
members, so stop them first.
"""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition  # noqa: TID251 - to put, not to ask
from confluent_kafka.admin import AdminClient

from pipeline.observe.gauges import GROUPS
from pipeline.route.topics import ORDERS, RETRY, broker, client_config, full_name, reason
from pipeline.runtime import Unavailable, begin
from pipeline.settings import Kafka, load

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

PATIENCE_S = 10.0


def rewind(settings: Kafka, group: str) -> list[TopicPartition]:
    """Where the group begins now.

    Raises:
        Unavailable: Kafka does not answer, or refuses.
    """
    admin = AdminClient(client_config(settings))
    name = full_name(settings, group)
    try:
        there = admin.list_topics(timeout=PATIENCE_S).topics
        topics = [topic for short in (ORDERS, f"{RETRY}.{group}") if (topic := full_name(settings, short)) in there]
        # Where the beginning is gone by age, a member finds no such offset, and begins at the first that is there.
        places = [TopicPartition(topic, number, 0) for topic in topics for number in there[topic].partitions]
        put = ConsumerGroupTopicPartitions(name, places)
        [done] = admin.alter_consumer_group_offsets([put], request_timeout=PATIENCE_S).values()
        taken = list(done.result().topic_partitions)
        if refused := [one.error for one in taken if one.error is not None]:
            raise Unavailable(broker(settings), f"group {name!r} not rewound: {reason(refused[0])}")
    except KafkaException as why:
        raise Unavailable(broker(settings), f"group {name!r} not rewound: {reason(why.args[0])}") from why
    return taken


def main(argv: Sequence[str] | None = None) -> None:
    """Rewind it, and say so."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline rewind", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("group", choices=GROUPS, help="which; its topics are read from the beginning")
    asked = parser.parse_args(argv)
    begin("rewind", exposing=False)
    try:
        places = rewind(load(Kafka), asked.group)
    except Unavailable as why:
        log.error("%s", why)  # noqa: TRY400 - says what to do, a traceback would not
        sys.exit(1)
    for one in places:
        log.info("Group %r begins at %s[%d]@%d.", asked.group, one.topic, one.partition, one.offset)
