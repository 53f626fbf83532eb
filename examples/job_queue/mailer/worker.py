"""Takes one job after the other, mails its invoice, marks it done. Run as many of these as you like."""

import http.client
import json
import logging
import os
import time
from typing import NamedTuple
from urllib.parse import urlsplit

import psycopg
from chaos.checkpoint import checkpoint

log = logging.getLogger("mailer")

TAKE = """
    select id, recipient from jobs where mailed_at is null
    order by created_at limit 1 for update skip locked
"""


class Job(NamedTuple):
    """An invoice to mail."""

    id: str
    recipient: str


def handle(connection: psycopg.Connection, job: Job) -> None:
    """Mail first, mark second: a crash between the two mails again, and the key makes that harmless."""
    checkpoint("job.taken")
    mail(job, idempotency_key(job))
    checkpoint("job.mailed")
    mark(connection, job)
    checkpoint("job.marked")


def idempotency_key(job: Job) -> str:
    """Make two mails the same mail for the service: it depends on nothing but the job."""
    return f"invoice-{job.id}"


def mail(job: Job, key: str) -> None:
    """Have the mail service send it. It answers 201 for a mail and 200 for one that it has sent before."""
    service = http.client.HTTPConnection(urlsplit(os.environ["MAIL_URL"]).netloc, timeout=5)
    try:
        service.request("POST", "/mails", json.dumps({"job": job.id, "to": job.recipient}), {"Idempotency-Key": key})
        status = service.getresponse().status
    finally:
        service.close()
    if status not in {200, 201}:
        raise OSError(f"the mail service answered {status} to job {job.id}")


def mark(connection: psycopg.Connection, job: Job) -> None:
    """Note that nothing is left to do; others see it with the commit."""
    connection.execute("update jobs set mailed_at = now() where id = %s", [job.id])


def work(connection: psycopg.Connection) -> bool:
    """Do one job, in one transaction; False if there is none that nobody else has taken."""
    row = connection.execute(TAKE).fetchone()
    if row is not None:
        handle(connection, Job(*row))
    connection.commit()
    return row is not None


def main() -> None:
    """Work until killed, which may happen anywhere: whatever was not committed, somebody else will do."""
    logging.basicConfig(level=logging.INFO)
    pause = float(os.environ.get("POLL_S", "1"))
    while True:
        try:
            with psycopg.connect(os.environ["DATABASE_URL"]) as connection:
                work_on(connection, pause)
        except psycopg.OperationalError:
            log.exception("the database is away, or has given up a transaction; whatever is open is done again")
            time.sleep(pause)


def work_on(connection: psycopg.Connection, pause: float) -> None:
    """Do one job after the other for as long as the connection lasts."""
    while True:
        try:
            busy = work(connection)
        except (OSError, http.client.HTTPException):
            log.exception("the mail service is away; the job stays open")
            connection.rollback()
            busy = False
        if not busy:
            time.sleep(pause)


if __name__ == "__main__":
    main()
