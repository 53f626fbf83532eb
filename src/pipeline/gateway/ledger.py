"""The gateway's logs, of charges and of refunds: a JSON line for each request, on disk before the request is answered.

Being first on disk, then in the reply, it can be believed after any crash: what was answered is in it. `effect` is true
where money moved: once per key. The log is all the state there is; a restart reads it and knows every key again.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import time
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from pipeline.observe.process import done

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

CREATED, AGAIN, DECLINED, MISMATCH = 201, 200, 402, 422

DECLINED_AMOUNT = 40_200  # the amount that stands for a card without funds, as test cards do with real gateways


class Charge(NamedTuple):
    """What somebody wants charged, or refunded."""

    order_id: str
    amount: int
    currency: str


class Record(TypedDict):
    """One line. `n` counts lines from 1, `at` is Unix time in seconds, `reply` the HTTP status that was answered."""

    n: int
    at: float
    key: str
    order_id: str
    amount: int
    currency: str
    effect: bool
    reply: int


class Ledger:
    """An append-only log in the file at `path`, and what follows from it. For one process and one thread."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._records: list[Record] = []
        self._outcomes: dict[str, Record] = {}
        for line in self._whole_lines(path):
            self._remember(json.loads(line))

    def charge(self, key: str, charge: Charge) -> Record:
        """Decide on a charge and log it. When this returns, the record is on disk."""
        return self.enter(key, charge, DECLINED if charge.amount == DECLINED_AMOUNT else CREATED)

    def enter(self, key: str, charge: Charge, answer: int) -> Record:
        """Log a request; `answer` is what a new key is answered. When this returns, the record is on disk."""
        before = self._outcomes.get(key)
        if before is None:
            reply = answer
        elif Charge(before["order_id"], before["amount"], before["currency"]) != charge:
            reply = MISMATCH
        else:
            reply = AGAIN if before["reply"] == CREATED else before["reply"]
        effect = before is None and reply == CREATED
        n = len(self._records) + 1
        order_id, amount, currency = charge
        record: Record = {
            "n": n,
            "at": time.time(),
            "key": key,
            "order_id": order_id,
            "amount": amount,
            "currency": currency,
            "effect": effect,
            "reply": reply,
        }
        self._append(record)
        self._remember(record)
        done("requests that moved money" if effect else "requests that moved nothing")
        return record

    def of_order(self, order_id: str) -> list[Record]:
        """All records about an order, oldest first."""
        return [record for record in self._records if record["order_id"] == order_id]

    def knows(self, key: str) -> bool:
        """Whether there was a request with this key."""
        return key in self._outcomes

    def moved(self, order_id: str, currency: str) -> int:
        """How much money of an order has moved, in minor units."""
        return sum(one["amount"] for one in self.of_order(order_id) if one["effect"] and one["currency"] == currency)

    def _append(self, record: Record) -> None:
        line = json.dumps(record, separators=(",", ":")).encode() + b"\n"
        end = os.fstat(self._file).st_size
        # One write, so that a crash leaves a whole line or a torn last one, never two halves of different lines.
        if os.write(self._file, line) != len(line):
            os.ftruncate(self._file, end)
            full = f"The disk took only a part of line {record['n']} of the ledger."
            raise OSError(errno.ENOSPC, full)
        os.fdatasync(self._file)

    def _remember(self, record: Record) -> None:
        self._records.append(record)
        self._outcomes.setdefault(record["key"], record)

    def _whole_lines(self, path: Path) -> list[bytes]:
        content = path.read_bytes()
        whole, newline, torn = content.rpartition(b"\n")
        if torn:
            # Its writer died before it answered, so nobody was told about this charge.
            log.warning("%s ends in a torn line of %d bytes: cutting it off.", path, len(torn))
            os.ftruncate(self._file, len(whole) + len(newline))
        return whole.splitlines()
