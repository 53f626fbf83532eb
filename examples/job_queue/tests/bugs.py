"""Workers with a bug. Each runs in a process of its own, so it may change the module it is a variation of."""

import http.client
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


def retried_out_of_the_transaction() -> None:
    """Keep no transaction open while the mail service is away: mark the job, commit, and try again until it is mailed.

    It takes two faults to lose a mail: the service has to be away, and then the worker has to die.
    """

    def handle(connection: psycopg.Connection, job: worker.Job) -> None:
        try:
            worker.mail(job, worker.idempotency_key(job))
        except (OSError, http.client.HTTPException):
            worker.mark(connection, job)
            connection.commit()
            worker.mail(job, worker.idempotency_key(job))
        else:
            worker.mark(connection, job)

    worker.handle = handle
    worker.main()
