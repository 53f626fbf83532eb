"""The mailer as a system that can be drilled."""

from collections.abc import Iterator

import pytest
from chaos import Run, Session, System, Worker, no_rows, nothing_lost, one_effect_per_key

from mailer import service, worker

WAYS = {"function": (worker.main, 1), "command line": ("python -m mailer.worker", 1), "two replicas": (worker.main, 2)}


@pytest.fixture(scope="module", params=WAYS.values(), ids=list(WAYS))
def mailer(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[System]:
    """A queue of its own, a mail service, and one or more workers, run in each way there is."""
    run, replicas = request.param
    with onecharge.lane(schema="mailer/schema.sql") as lane:
        mail = lane.trusted("mail", service.main, ledger="mails.jsonl", key="job")
        env = {"MAIL_URL": mail.url, "POLL_S": "0.01"}
        with System(
            lane,
            workers=[Worker("mailer", run, replicas=replicas, env=env)],
            workload=three_invoices,
            settled=[no_rows("jobs_open")],
            invariants=[one_effect_per_key(mail.ledger), nothing_lost(mail.ledger)],
            grace=0.3,
        ) as system:
            yield system


def three_invoices(run: Run) -> None:
    """Put three jobs into the queue; from then on the mailer answers for them."""
    for number in range(3):
        job = run.new_key()
        run.execute("insert into jobs (id, recipient) values (%s, %s)", job, f"customer-{number}@example.com")
        run.accept(job)
