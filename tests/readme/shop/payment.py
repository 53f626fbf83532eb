"""Charges at PSP, as a member of GROUP."""

from __future__ import annotations

import os

from tests.thin import payment


def main() -> None:
    """Run until SIGTERM."""
    os.environ["NAMESPACE"] = os.environ["GROUP"].rpartition(".")[0]
    os.environ["GATEWAY_URL"] = os.environ["PSP"]
    os.environ["SESSION_TIMEOUT_MS"] = "500"  # how long a member is missed that was killed
    payment.main()
