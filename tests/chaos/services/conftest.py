"""Real servers, shared by the tests of this directory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.services.local import Local
from chaos.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Local]:
    """Postgres, Kafka and Toxiproxy of our own, running."""
    with Supervisor(tmp_path_factory.mktemp("servers")) as supervisor:
        local = Local(supervisor)
        local.start("postgres", "kafka", "toxiproxy")
        yield local
        local.close()
