"""Fixtures for the harness's plain tests: everything real, nothing mocked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor of its own for one test."""
    with Supervisor(tmp_path / "logs") as supervisor:
        yield supervisor
