"""A trusted recorder of the orders topic: one JSON line per message, on disk before the message counts as read.

Its lines are what the topic really holds, duplicates included, which no consumer with an inbox would show. It commits
as the group GROUP, so that `group_drained` says whether it has read everything. With COPIES set, an event that comes
again is recorded as having no effect: so it is to a reader with an inbox.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

from confluent_kafka import Consumer, Message

OURS = {"enable.auto.commit": False, "auto.offset.reset": "earliest", "fetch.wait.max.ms": 25}


def main() -> None:
    """Record until SIGKILL. It listens at PORT and never answers: that is how a lane sees that it is there."""
    servers = {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"], "group.id": os.environ["GROUP"]}
    consumer = Consumer(servers | OURS)
    consumer.subscribe([os.environ["TOPIC"]])
    seen: set[str] | None = set() if "COPIES" in os.environ else None
    with (
        Path(os.environ["LEDGER"]).open("ab", buffering=0) as ledger,
        socket.create_server(("127.0.0.1", int(os.environ["PORT"]))),
    ):
        while True:
            message = consumer.poll(1)
            if message is not None and message.error() is None:
                ledger.write(line(message, seen))
                os.fsync(ledger.fileno())
                consumer.commit(message=message, asynchronous=False)


def line(message: Message, seen: set[str] | None) -> bytes:
    """What the ledger says about a message."""
    event = json.loads(message.value() or b"")
    record = {"order_id": event["order_id"], "event_id": event["event_id"], "seq": event["seq"]}
    if seen is not None:
        record["effect"] = event["event_id"] not in seen
        seen.add(event["event_id"])
    place = {"partition": message.partition(), "offset": message.offset()}
    return json.dumps(record | place).encode() + b"\n"
