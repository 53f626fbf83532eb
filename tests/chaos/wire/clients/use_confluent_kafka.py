"""librdkafka by way of confluent_kafka."""

import os
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

BOOTSTRAP, TOPIC, GROUP, KEY = (os.environ[n] for n in ("KAFKA_BOOTSTRAP_SERVERS", "TOPIC", "GROUP", "KEY"))
SERVERS: dict[str, Any] = {"bootstrap.servers": BOOTSTRAP}
PATIENCE_S = 30.0


def check(error: Any, _message: Message) -> None:
    """End with the error of a message that was not delivered."""
    if error:
        raise SystemExit(str(error))


def produce(producer: Producer, note: str) -> None:
    """Have one message acknowledged. Its padding makes compression worth while."""
    producer.produce(TOPIC, note.ljust(200, "."), KEY, on_delivery=check)
    if producer.flush(PATIENCE_S):
        raise SystemExit(f"{note} was not delivered")


def main() -> None:
    """Do the script."""
    produce(Producer(SERVERS), "plain")
    produce(Producer({**SERVERS, "compression.type": "lz4"}), "compressed")

    settings = {**SERVERS, "group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.subscribe([TOPIC])
    seen = 0
    while seen < 2:
        message = consumer.poll(PATIENCE_S)
        if message is None or message.error():
            raise SystemExit(f"{seen} messages, then {message and message.error()}")
        seen += message.key() == KEY.encode()
    consumer.commit(asynchronous=False)
    [after] = consumer.position(consumer.assignment())
    consumer.close()

    outsider = Consumer({**settings, "group.id": f"{GROUP}.transaction"})
    producer = Producer({**SERVERS, "transactional.id": f"{GROUP}.transaction"})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    produce(producer, "committed")
    offsets = [TopicPartition(TOPIC, after.partition, after.offset)]
    producer.send_offsets_to_transaction(offsets, outsider.consumer_group_metadata(), PATIENCE_S)
    producer.commit_transaction(PATIENCE_S)
    producer.begin_transaction()
    produce(producer, "aborted")
    producer.abort_transaction(PATIENCE_S)
    outsider.close()


if __name__ == "__main__":
    main()
