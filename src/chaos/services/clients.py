"""The clients of Postgres, Kafka and Docker, imported when first needed: `import chaos` costs nobody a driver."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from chaos.errors import MissingPart

FIND_AGAIN = {"metadata.recovery.rebootstrap.trigger.ms": 1000}
"""For each client of Kafka. After a freeze a lone broker says for a moment that there is none, and librdkafka drops it;
by default it asks the bootstrap servers again after five minutes."""


def psycopg() -> Any:
    """The module `psycopg`."""
    require_client("psycopg")
    return importlib.import_module("psycopg")


def confluent_kafka() -> Any:
    """The module `confluent_kafka`, with its `admin` in place."""
    require_client("confluent_kafka")
    importlib.import_module("confluent_kafka.admin")
    return importlib.import_module("confluent_kafka")


def docker() -> Any:
    """The module `docker`."""
    require_client("docker", "docker")
    return importlib.import_module("docker")


def require_client(module: str, extra: str = "clients") -> None:
    """Raise `MissingPart` if what an extra brings is not installed, without the time its import takes."""
    if importlib.util.find_spec(module) is None:
        package = module.replace("_", "-")
        remedy = f"Install it with `pip install 'onecharge[{extra}]'`."
        part = f"the client {package}" if extra == "clients" else package
        raise MissingPart(part, looked_for=[f"the Python package {package}"], remedy=remedy)
