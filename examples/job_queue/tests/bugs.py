"""Workers with a bug. Each runs in a process of its own, so it may change the module it is a variation of."""

from uuid import uuid4

import psycopg
from chaos.checkpoint import checkpoint

from mailer import worker


def new_key_per_attempt() -> None:
    """Repeat a mail in such a way that the service cannot recognise the repetition."""
    worker.idempotency_key = lambda job: uuid4().hex
    worker.main()


def marked_before_mailed() -> None:
    """Commit that a job is done before it is."""

    def handle(connection: psycopg.Connection, job: worker.Job) -> None:
        worker.mark(connection, job)
        connection.commit()
        checkpoint("job.marked")
        worker.mail(job, worker.idempotency_key(job))

    worker.handle = handle
    worker.main()
