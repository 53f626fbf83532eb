"""Twins of the payment group.

key_per_attempt     a new key for each attempt: charged twice wherever an attempt ends behind its charge (`http.post`:
                    crash-after, lose-reply; `postgres.commit`: crash-before, lose-request)
charges_what_comes  likewise, and has no inbox: charges twice whatever is delivered twice
refund_on_time_out  takes an answer that did not come for a no, and the order for failed: one that was charged stays so
                    (`http.post`: lose-reply)
outage_for_a_failure  spends an event's budget on a gateway that is away: dead letters behind an outage
forgets_refunds     passes order.failed over: what was paid for a failed order is kept, without any fault
offset_first        commits the offset before the charge: nobody charges where the member dies behind that
                    (`kafka.offset_commit`: crash-after up to `http.post`: crash-before)
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from pipeline.gateway_client import Gateway
from pipeline.process import retry
from pipeline.process.member import run
from pipeline.process.payment import Payment
from pipeline.runtime import Unavailable
from tests.twins.group_no_inbox import NoInbox
from tests.twins.group_offset_first import OffsetFirst

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from pipeline.gateway_client import Asked


class KeyPerAttempt(Payment):
    """Believes that a key is there to be unique."""

    @staticmethod
    def key(order_id: str, what: str) -> str:
        """BUG: should be derived from the order alone."""
        return f"{Payment.key(order_id, what)}-{uuid4()}"


class TakesSilenceForANo(Gateway):
    """Does not wait for ever."""

    def charge(self, asked: Sequence[Asked]) -> list[bool]:
        """BUG: should not say what it does not know."""
        try:
            return super().charge(asked)
        except Unavailable:
            return [False] * len(asked)


class OutageForAFailure(Gateway):
    """Knows one kind of trouble."""

    def charge(self, asked: Sequence[Asked]) -> list[bool]:
        """BUG: should say who is away."""
        try:
            return super().charge(asked)
        except Unavailable as why:
            raise RuntimeError(str(why)) from why


class Impatient(Payment):
    """Has such a client, which does not wait for long."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway.__class__ = OutageForAFailure
        for connection in self.gateway._connections:
            connection.timeout = 0.2


class RefundOnTimeOut(Payment):
    """Has an answer for every customer, at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway.__class__ = TakesSilenceForANo


class ForgetsRefunds(Payment):
    """Is done when an order is paid."""

    def refund(self, connection: psycopg.Connection, orders: Sequence[str]) -> None:
        """BUG: should give back what was charged."""


def key_per_attempt() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(KeyPerAttempt)


def charges_what_comes() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(KeyPerAttempt, NoInbox)


def refund_on_time_out() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(RefundOnTimeOut)


def outage_for_a_failure() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(Impatient)


def outage_for_a_failure_retries() -> None:
    """Run its retry worker."""
    retry.run(Impatient)


def forgets_refunds() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(ForgetsRefunds)


def offset_first() -> None:
    """Run it in the place of `pipeline.process.payment:main`."""
    run(Payment, OffsetFirst)
