"""A worker with a bug, as one could be written."""

import asyncio

from aiokafka import ConsumerRecord, TopicPartition

from notifier import worker


class Hasty(worker.Loop):
    """Offset first, effect second."""

    async def process(self, message: ConsumerRecord) -> None:
        """Commit what is not done yet."""
        await self._consumer.commit({TopicPartition(message.topic, message.partition): message.offset + 1})
        await super().process(message)


def offset_before_effect() -> None:
    """Run it."""
    asyncio.run(worker.work(Hasty))
