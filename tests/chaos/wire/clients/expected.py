"""What the wire must name of each program's script: every effect, in order, with the notes that are in its frames.

Each script also does what is no effect: reads, a transaction that only reads, an UPDATE of no row, a rollback. An
effect that the server refuses for the moment and that the client sends again by itself (init_producer_id, while the
coordinator loads) is here once.
"""

from __future__ import annotations

from typing import NamedTuple


class Expected(NamedTuple):
    """One effect. Beside each of the notes there is the key; a site without notes has none but for those in `KEYED`."""

    site: str
    notes: tuple[str, ...] = ()


KEYED = ("http.delete", "kafka.offset_commit", "kafka.txn_offset_commit")
"""The one has the key in its path, the others are about the records that they cover, which have it."""

SINGLE = Expected("postgres.write", ("autocommit",))
TRANSACTION = Expected("postgres.commit", ("transaction",))
MANY = Expected("postgres.write", ("many-1", "many-2"))  # one implicit transaction: one Sync, or one simple query
PIPELINE = Expected("postgres.commit", ("pipeline-1", "pipeline-2"))
COPY = Expected("postgres.write", ("copy-1", "copy-2"))

PRODUCE = (Expected("kafka.produce", ("plain",)), Expected("kafka.produce", ("compressed",)))
CONSUME = (Expected("kafka.offset_commit"), Expected("kafka.leave_group"))
TRANSACT = (
    Expected("kafka.init_producer_id"),
    Expected("kafka.produce", ("committed",)),
    Expected("kafka.txn_offset_commit"),
    Expected("kafka.commit_transaction"),
    Expected("kafka.produce", ("aborted",)),
    Expected("kafka.abort_transaction"),
)

HTTP = (
    Expected("http.post", ("post",)),
    Expected("http.post", ("chunked",)),
    Expected("http.put", ("put",)),
    Expected("http.delete"),
)

EXPECTED: dict[str, tuple[Expected, ...]] = {
    "psycopg": (SINGLE, TRANSACTION, PIPELINE, MANY, COPY),
    "psycopg_async": (SINGLE, TRANSACTION, PIPELINE, COPY._replace(site="postgres.commit")),
    "asyncpg": (SINGLE, TRANSACTION, MANY, COPY),
    "sqlalchemy": (SINGLE, TRANSACTION, Expected("postgres.commit", ("flush-1", "flush-2"))),
    "confluent_kafka": (*PRODUCE, *CONSUME, *TRANSACT),
    "aiokafka": (*PRODUCE, *CONSUME, *TRANSACT),
    "java": (*PRODUCE, *CONSUME, *CONSUME, *TRANSACT),
    "requests": HTTP,
    "httpx": HTTP,
    "aiohttp": HTTP,
    "go": (SINGLE, TRANSACTION, MANY, PIPELINE, COPY, *PRODUCE, *CONSUME, *TRANSACT, CONSUME[1], *HTTP),
    "node": (
        *(SINGLE, TRANSACTION, MANY),
        *(Expected("postgres.write", ("named-1",)), Expected("postgres.write", ("named-2",))),
        *(*PRODUCE, *CONSUME, *TRANSACT, *HTTP),
    ),
}
