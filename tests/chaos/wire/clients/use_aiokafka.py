"""aiokafka."""

import asyncio
import os
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition  # type: ignore[import-untyped]

BOOTSTRAP, TOPIC, GROUP, KEY = (os.environ[n] for n in ("KAFKA_BOOTSTRAP_SERVERS", "TOPIC", "GROUP", "KEY"))
PATIENCE_S = 30.0


async def produce(producer: Any, note: str) -> None:
    """Have one message acknowledged. Its padding makes compression worth while."""
    await producer.send_and_wait(TOPIC, note.ljust(200, ".").encode(), KEY.encode())


async def main() -> None:
    """Do the script."""
    for note, codec in (("plain", None), ("compressed", "snappy")):
        async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, compression_type=codec) as producer:
            await produce(producer, note)

    after: dict[Any, int] = {}
    settings: dict[str, Any] = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
    async with AIOKafkaConsumer(TOPIC, bootstrap_servers=BOOTSTRAP, group_id=GROUP, **settings) as consumer:
        seen = 0
        while seen < 2:
            message = await asyncio.wait_for(consumer.getone(), PATIENCE_S)
            after[TopicPartition(TOPIC, message.partition)] = message.offset + 1
            seen += message.key == KEY.encode()
        await consumer.commit()

    group = f"{GROUP}.transaction"
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id=group) as producer:
        async with producer.transaction():
            await produce(producer, "committed")
            await producer.send_offsets_to_transaction(after, group)
        await producer.begin_transaction()
        await produce(producer, "aborted")
        await producer.abort_transaction()


if __name__ == "__main__":
    asyncio.run(main())
