"""Servers that somebody else runs: you give the addresses. The same attributes as `chaos.services.local.Local`."""

from __future__ import annotations

from chaos.services.kafka import Kafka
from chaos.services.postgres import Postgres
from chaos.waiting import Deadline

_REACH_S = 10.0


class External:
    """Postgres and Kafka at given addresses; None for what was not given.

    Nothing here is started or stopped. The first use checks that the server answers.
    """

    def __init__(self, *, postgres: str | None = None, kafka: str | None = None) -> None:
        self._postgres = Postgres(postgres) if postgres else None
        self._kafka = Kafka(kafka) if kafka else None

    @property
    def postgres(self) -> Postgres | None:
        """The Postgres server."""
        if self._postgres is not None:
            self._postgres.require_reachable(Deadline(_REACH_S))
        return self._postgres

    @property
    def kafka(self) -> Kafka | None:
        """The Kafka cluster."""
        if self._kafka is not None:
            self._kafka.require_reachable(Deadline(_REACH_S))
        return self._kafka
