"""`python -m tests.pipeline.no_coordinator`: asks a broker that says it is not the coordinator what a group committed.

The broker is librdkafka's own mock, which confluent-kafka has and does not show; hence ctypes. In a process of its own,
as an admin client that is asked the same ends the process.
"""

from __future__ import annotations

import ctypes
import re
import sys
from pathlib import Path

from confluent_kafka import KafkaException, TopicPartition

from pipeline.observe.kafka import Groups
from pipeline.settings import Kafka

OFFSET_FETCH, NOT_COORDINATOR, PRODUCER = 9, 16, 0


class Mock:
    """A broker with a topic `orders`."""

    def __init__(self) -> None:
        [path] = set(re.findall(r"/\S*librdkafka\S*", Path("/proc/self/maps").read_text()))
        self._lib = lib = ctypes.CDLL(path)
        pointer = ctypes.c_void_p
        lib.rd_kafka_conf_new.restype = lib.rd_kafka_new.restype = lib.rd_kafka_mock_cluster_new.restype = pointer
        lib.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
        client = pointer(lib.rd_kafka_new(PRODUCER, pointer(lib.rd_kafka_conf_new()), None, ctypes.c_size_t(0)))
        self._cluster = pointer(lib.rd_kafka_mock_cluster_new(client, 1))
        self.address: str = lib.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        lib.rd_kafka_mock_topic_create(self._cluster, b"orders", 1, 1)

    def refuse(self) -> None:
        """Once, a question for offsets."""
        errors = (ctypes.c_int * 1)(NOT_COORDINATOR)
        self._lib.rd_kafka_mock_push_request_errors_array(
            self._cluster, ctypes.c_int16(OFFSET_FETCH), ctypes.c_size_t(1), errors
        )


def main() -> None:
    """Ask twice."""
    broker = Mock()
    groups = Groups(Kafka(kafka_bootstrap_servers=broker.address))
    broker.refuse()
    for _ in range(2):
        try:
            told = str(groups._committed("payment", [TopicPartition("orders", 0)]))
        except KafkaException as why:
            told = why.args[0].name()
        sys.stdout.write(f"{told}\n")


if __name__ == "__main__":
    main()
