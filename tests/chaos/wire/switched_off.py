"""A wire whose faults have lost their bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chaos import faults
from chaos.wire import process

if TYPE_CHECKING:
    from chaos.wire.frame import Frame


async def _nothing(self: faults.FaultKind, frame: Frame, value: str) -> None:
    """Do nothing."""


def main() -> None:
    """Run the wire process."""
    for name in faults.registered():
        type(faults.kind(name)).act = _nothing  # type: ignore[method-assign]
    process.main()
