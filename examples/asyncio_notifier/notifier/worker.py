"""Takes one event after the other from a topic and sends the customer a text message. Run as many as you like.

For each event: note it in the inbox, send, keep the receipt, COMMIT; then commit the offset. Whatever fails in between,
the event is taken again, by this process or by another; the inbox and the service's idempotency key see to it that the
message is sent once all the same.
"""

import asyncio
import json
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass

import aiohttp
import asyncpg
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

log = logging.getLogger("notifier")

TIMEOUT_S = 3.0  # for every reply; who waits longer waits for one that was lost
PAUSE_S = 0.1  # before something is tried again
AWAY = (OSError, aiohttp.ClientError, asyncpg.PostgresError, asyncpg.InterfaceError)

FIRST_TIME = "insert into inbox (event_id) values ($1) on conflict do nothing returning true"
RECORD = "insert into notifications (event_id, phone, receipt) values ($1, $2, $3)"


@dataclass(frozen=True)
class Event:
    """An order has changed, and its customer wants to know."""

    event_id: str
    phone: str
    text: str


class Notifier:
    """What is done about an event."""

    def __init__(self, pool: asyncpg.Pool, http: aiohttp.ClientSession) -> None:
        self._pool, self._http = pool, http

    async def handle(self, event: Event) -> None:
        """Return when the message is sent and that is in the database."""
        async with self._pool.acquire(timeout=TIMEOUT_S) as connection, connection.transaction():
            # If somebody else has the event in hand, this waits until they have committed or are gone.
            if await connection.fetchval(FIRST_TIME, event.event_id):
                receipt = await self._send(event)
                await connection.execute(RECORD, event.event_id, event.phone, receipt)

    async def _send(self, event: Event) -> str:
        body = {"event": event.event_id, "to": event.phone, "text": event.text}
        headers = {"Idempotency-Key": f"notify-{event.event_id}"}  # depends on nothing but the event
        async with self._http.post("/messages", json=body, headers=headers, raise_for_status=True) as reply:
            receipt: str = (await reply.json())["receipt"]
            return receipt


class Loop(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member of the group, which gives no partition away while it has an event of it in hand.

    Otherwise, a process that was out for long could commit its old offset as a member of the new generation, behind
    what others have done meanwhile.
    """

    def __init__(self, consumer: AIOKafkaConsumer, notifier: Notifier) -> None:
        self._consumer, self._notifier = consumer, notifier
        self._in_hand = asyncio.Lock()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Wait until nothing is in hand; the next event comes with the next assignment."""
        async with self._in_hand:
            log.info("giving up %s", revoked)

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Say so."""
        log.info("taking %s", assigned)

    async def run(self, topic: str) -> None:
        """Consume until Kafka says no."""
        self._consumer.subscribe([topic], listener=self)
        while True:
            message = await self._consumer.getone()
            async with self._in_hand:
                await self.process(message)

    async def process(self, message: ConsumerRecord) -> None:
        """Effect first, offset second."""
        partition = TopicPartition(message.topic, message.partition)
        try:
            await self._notifier.handle(Event(**json.loads(message.value)))
        except AWAY:
            log.exception("event %s stays the next one", message.offset)
            self._consumer.seek(partition, message.offset)
            await asyncio.sleep(PAUSE_S)
        else:
            await self._consumer.commit({partition: message.offset + 1})


async def work(loop: Callable[[AIOKafkaConsumer, Notifier], Loop] = Loop) -> None:
    """Run until killed. When Kafka says no, begin anew at the committed offsets: what was not committed comes again."""
    env = os.environ
    timeout, milliseconds = aiohttp.ClientTimeout(total=TIMEOUT_S), int(TIMEOUT_S * 1000)
    pool = asyncpg.create_pool(
        env["DATABASE_URL"], min_size=0, max_size=1, timeout=TIMEOUT_S, command_timeout=TIMEOUT_S
    )
    async with pool, aiohttp.ClientSession(env["SMS_URL"], timeout=timeout) as http:
        while True:
            consumer = AIOKafkaConsumer(
                bootstrap_servers=env["KAFKA_BOOTSTRAP_SERVERS"],
                group_id=env["GROUP"],
                group_instance_id=env["INSTANCE"],
                auto_offset_reset="earliest",
                enable_auto_commit=False,
                request_timeout_ms=milliseconds,
                session_timeout_ms=int(env.get("SESSION_TIMEOUT_MS", "10000")),
                heartbeat_interval_ms=int(env.get("SESSION_TIMEOUT_MS", "10000")) // 4,
            )
            try:
                async with consumer:
                    await loop(consumer, Notifier(pool, http)).run(env["TOPIC"])
            except KafkaError:
                log.exception("Kafka says no; beginning anew")
                await asyncio.sleep(PAUSE_S)


def main() -> None:
    """Run until killed, which may happen anywhere."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    asyncio.run(work())


if __name__ == "__main__":
    main()
