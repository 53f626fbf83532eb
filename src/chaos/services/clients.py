"""The Postgres and Kafka clients, imported when first needed: `import chaos` must cost nobody a database driver."""

from __future__ import annotations

import importlib
from typing import Any

from chaos.errors import MissingPart

_REMEDY = "Install it with `pip install 'onecharge[clients]'`."


def psycopg() -> Any:
    """The module `psycopg`."""
    return _client("psycopg")


def confluent_kafka() -> Any:
    """The module `confluent_kafka`, with its `admin` in place."""
    _client("confluent_kafka.admin")
    return _client("confluent_kafka")


def _client(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise MissingPart(f"the client {package}", looked_for=[f"import {module}"], remedy=_REMEDY) from error
