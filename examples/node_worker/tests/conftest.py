"""The worker in Node, and the bank, as a system that can be drilled."""

import fcntl
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from chaos import (
    Invariant,
    Lane,
    MissingPart,
    Run,
    Session,
    System,
    Violation,
    Worker,
    no_rows,
    nothing_lost,
    one_effect_per_key,
)
from confluent_kafka import Consumer

PROJECT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def packages(onecharge: Session) -> None:
    """What package-lock.json names, in node_modules."""
    del onecharge  # is needed for a missing part to skip the test, or to fail it in CI
    for tool in (["npm", "--version"], ["node", "--eval", "process.exit(globalThis.fetch ? 0 : 1)"]):
        if shutil.which(tool[0]) is None or subprocess.run(tool, check=False, stdout=subprocess.DEVNULL).returncode:
            remedy = "Install Node.js 18 or newer, with npm, from your distribution."
            raise MissingPart(tool[0], looked_for=[f"{tool[0]} on PATH that can do `{' '.join(tool)}`"], remedy=remedy)
    locked, installed = PROJECT / "package-lock.json", PROJECT / "node_modules" / ".package-lock.json"
    with locked.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)  # npm ci empties the directory, also beneath another process of pytest -n
        if not installed.exists() or installed.stat().st_mtime < locked.stat().st_mtime:
            subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=PROJECT, check=True)


@pytest.fixture(scope="module", params=["node worker.js"])
def payouts(onecharge: Session, packages: None, request: pytest.FixtureRequest) -> Iterator[System]:
    """Two workers, a table, a topic and a bank."""
    with onecharge.lane(schema="schema.sql", topics={"paid": 1}) as lane:
        bank = lane.trusted("bank", "node bank.js", ledger="bank.jsonl", key="payout")
        env = {"BANK_URL": bank.url, "TOPIC": "{topics[paid]}", "POLL_MS": "20"}
        told = Told(lane)
        everybody_told = Invariant("everybody told", told.check, bank.ledger, final=False)
        with System(
            lane,
            workers=[Worker("payouts", request.param, replicas=2, env=env)],
            workload=three_payouts,
            settled=[no_rows("payouts_open")],
            invariants=[one_effect_per_key(bank.ledger), nothing_lost(bank.ledger), everybody_told],
            grace=0.3,
        ) as system:
            yield system
        told.close()


def three_payouts(run: Run) -> None:
    """Have three refunds to pay out."""
    for number in range(3):
        payout = run.new_key()
        run.execute("insert into payouts (id, account, cents) values (%s, %s, 1200)", payout, f"account-{number}")
        run.accept(payout)


class Told:
    """Whom the topic has told about."""

    def __init__(self, lane: Lane) -> None:
        # Commits nothing: whoever counts what the worker has done would find a group's offset that it knows nothing of.
        settings = {"group.id": "nobody", "auto.offset.reset": "earliest", "enable.auto.commit": False}
        self._consumer = Consumer({"bootstrap.servers": lane.kafka, "fetch.wait.max.ms": 20, **settings})
        [self._partition] = lane.partitions("paid")
        self._consumer.assign([self._partition])
        self._keys: list[str] = []

    def check(self, keys: Sequence[str]) -> list[Violation]:
        """Read to the end of the topic; a violation for each key that it says nothing of."""
        _, end = self._consumer.get_watermark_offsets(self._partition, timeout=10)
        while len(self._keys) < end:
            message = self._consumer.poll(10)
            if message is None or message.error():
                raise TimeoutError(f"the topic could not be read: {message and message.error()}")
            self._keys.append((message.key() or b"").decode())
        return [Violation("everybody told", key, "is not on the topic") for key in keys if key not in self._keys]

    def close(self) -> None:
        """End the connections."""
        self._consumer.close()
