"""A wire that takes a certain kind of request for nothing, as named in `BLIND`."""

from __future__ import annotations

import os

from chaos.wire import http, kafka_effects, postgres_transaction, process

_PRODUCE = 0


def main() -> None:
    """Run the wire process."""
    match os.environ["BLIND"]:
        case "postgres":
            postgres_transaction.Transaction.wrote = lambda *_: False  # type: ignore[method-assign]
        case "kafka":
            kafka_effects.EFFECTS[_PRODUCE] = lambda _body: None  # type: ignore[index]
        case "http":
            http._SAFE = frozenset({*http._SAFE, "POST"})  # type: ignore[misc]
    process.main()
