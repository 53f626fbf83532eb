"""A run whose servers are containers, and images that stand in for the official ones where these are out of reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos.services import kafka, toxiproxy

if TYPE_CHECKING:
    from chaos import Session

IMAGES = {
    "postgres": "local/postgres:18",
    "kafka": f"local/kafka:{kafka.VERSION}",
    "toxiproxy": f"local/toxiproxy:{toxiproxy.VERSION}",
}
WORKER = "local/worker:1"


@pytest.fixture(scope="session")
def containers(onecharge: Session, request: pytest.FixtureRequest) -> Session:
    """The test run, whose servers are containers."""
    if request.config.getoption("--onecharge-services") != "docker":
        pytest.skip("this needs --onecharge-services=docker and images, as ./run docker has them")
    onecharge.services.start("toxiproxy")  # the quickest way to hear what is missing
    return onecharge
