"""Twins of the reconciler.

charges   charges what nobody has confirmed, to be done with it: twice where only the confirmation was lost
          (`operator/kafka.produce`: freeze)
guesses   takes what the gateway does not know for what will never be: fails orders whose events are on their way
          (`relay/kafka.produce`: freeze)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.gateway_client import Asked
from pipeline.reconcile import Reconciler, run

if TYPE_CHECKING:
    from pipeline.reconcile import Overdue


class Charges(Reconciler):
    """Brings every order to an end."""

    def charged(self, order: Overdue) -> bool | None:
        """BUG: should ask, and by the key of the payment group."""
        key = self._payment.key(order.order_id, "reconcile")
        return self._payment.gateway.charge([Asked(key, order.order_id, order.amount, order.currency)])[0]


class Guesses(Reconciler):
    """Likewise, at less cost to the customer."""

    def charged(self, order: Overdue) -> bool | None:
        """BUG: should not say what it does not know."""
        return bool(super().charged(order))


def charges() -> None:
    """Run it in the place of `pipeline.reconcile:main`."""
    run(Charges)


def guesses() -> None:
    """Run it in the place of `pipeline.reconcile:main`."""
    run(Guesses)
