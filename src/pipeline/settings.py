"""What each worker is told, from environment variables and nowhere else.

One class per worker, so that a worker asks for nothing it does not use. `load` reads it; a variable that is missing or
wrong ends the process with one line that names it.
"""

from __future__ import annotations

import sys
from pathlib import Path  # noqa: TC003 - pydantic reads the annotations when the classes are made
from typing import Literal, TypeVar

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict


class _FromEnvironment(BaseSettings):
    # `PORT=` in a shell script means "not set", not "the empty string".
    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


_Settings = TypeVar("_Settings", bound=_FromEnvironment)


class Postgres(_FromEnvironment):
    """For workers with a database."""

    database_url: str = Field(description="the Postgres to use, such as postgresql://shop@127.0.0.1:5432/shop")


class Namespaced(_FromEnvironment):
    """For workers that name topics or groups. `namespace` lets several copies of the pipeline share a broker."""

    namespace: str = Field(default="", description="prefix of topic and group names, such as copy1")


class Patient(_FromEnvironment):
    """For clients of servers that may fall silent."""

    silence_s: float = Field(default=3, ge=0.1, description="seconds without an answer after which a server is away")


class Kafka(Namespaced, Patient):
    """For workers with a broker."""

    kafka_bootstrap_servers: str = Field(description="the Kafka to use, such as 127.0.0.1:9092")


class Listener(_FromEnvironment):
    """For workers that listen. Always on 127.0.0.1."""

    port: int = Field(ge=1, le=65535, description="the port to listen on, such as 8000")


class ApiSettings(Postgres, Listener):
    """For `pipeline.write.api`."""


class DisplaySettings(Postgres, Listener):
    """For `pipeline.display.page`."""

    api_url: str = Field(pattern=r"^http://", description="where orders are posted to, such as http://127.0.0.1:8000")
    api_timeout_s: float = Field(default=2, gt=0, description="seconds after which an answer is none")
    overdue_s: float = Field(default=30, gt=0, description="seconds after which we say that we could not confirm yet")


class ObserveSettings(Postgres, Kafka, Listener):
    """For `pipeline.observe.exporter`."""


class GaugesSettings(_FromEnvironment):
    """For `pipeline.observe.look`."""

    gauges_url: str = Field(pattern=r"^http://", description="of the gauges, such as http://127.0.0.1:9100/metrics")


class OperatorSettings(GaugesSettings, Postgres, Listener):
    """For `pipeline.display.operators`. What it starts, `pipeline.quarantine.replay`, is told the same environment."""


class WhichRelay(_FromEnvironment):
    """For `pipeline.publish.relay`, before it knows which settings to read."""

    relay: Literal["polling", "cdc"] = Field(default="polling", description="polling or cdc")


class RelaySettings(Postgres, Kafka):
    """For `pipeline.publish.polling`."""

    relay_name: str | None = Field(default=None, description="of this relay alone: back after a crash, it goes on")
    relay_lease_s: float = Field(default=15, ge=0.2, description="seconds of silence after which a relay is dead")
    relay_interval_s: float = Field(default=1, gt=0, description="seconds between looks at a quiet outbox")
    outbox_keep_s: float = Field(default=86_400, ge=0, description="seconds that a published row is kept")


class CdcSettings(Postgres, Kafka):
    """For `pipeline.publish.cdc`."""

    slot: str = Field(default="outbox", description="the logical slot to read, such as outbox")
    publication: str = Field(default="outbox", description="what is published of the tables, such as outbox")
    relay_lease_s: float = Field(default=15, ge=1, description="seconds of silence after which a relay is dead")
    exactly_once: bool = Field(default=False, description="whether Kafka's transactions are used")
    heartbeat_s: float = Field(default=5, gt=0, description="seconds between signs of life in the log")
    outbox_keep_s: float = Field(default=86_400, ge=0, description="seconds that a published row is kept")


class ConsumerSettings(Postgres, Kafka):
    """For every consumer group of `pipeline.process`."""

    group_instance_id: str | None = Field(default=None, description="makes this a static member of its group")
    session_timeout_ms: int = Field(default=10_000, ge=100, description="silence after which the group drops a member")


class GroupSettings(ConsumerSettings):
    """For groups of `pipeline.process.member`."""

    parking_limit: int = Field(default=10_000, ge=1, description="events that a group parks at most")


class Billed(Patient):
    """For workers that move money."""

    gateway_url: str = Field(pattern=r"^http://", description="the payment gateway, such as http://127.0.0.1:8001")


class RetrySettings(Postgres, Kafka):
    """For `pipeline.process.retry`."""

    retry_group: Literal["payment", "inventory", "notification"] = Field(
        description="whose: payment, inventory or notification"
    )
    retry_interval_s: float = Field(default=0.2, gt=0, description="seconds between looks at what is parked")
    retry_pause_s: float = Field(default=1, gt=0, description="seconds between attempts, doubled with each")
    retry_budget: int = Field(default=8, ge=1, description="attempts before an event is given up")


class ReplaySettings(Postgres, Kafka):
    """For `pipeline.quarantine.replay`."""

    gateway_url: str | None = Field(
        default=None, pattern=r"^http://", description="the payment gateway, to look charges up: http://127.0.0.1:8001"
    )
    gateway_keeps_keys_s: float = Field(
        default=86_400, ge=0, description="seconds after which the gateway may have forgotten a key"
    )


class ReconcileSettings(Postgres, Namespaced, Billed):
    """For `pipeline.reconcile`."""

    reconcile_after_s: float = Field(
        default=120, ge=0, description="seconds after which a pending order is looked into"
    )
    reconcile_interval_s: float = Field(default=10, gt=0, description="seconds between looks at pending orders")


class GatewaySettings(Listener):
    """For `pipeline.gateway.server`."""

    ledger: Path = Field(
        description="the file to log every charge request to, such as ./charges.jsonl; refunds: ./charges.refunds.jsonl"
    )

    @property
    def refunds(self) -> Path:
        """The file with every refund request."""
        return self.ledger.with_suffix(f".refunds{self.ledger.suffix}")


def load(settings: type[_Settings]) -> _Settings:
    """Read `settings` from the environment, or end the process with a line for each variable that is wrong."""
    try:
        return settings()
    except ValidationError as wrong:
        for error in wrong.errors():
            print(_explain(settings, str(error["loc"][0]), error["msg"]), file=sys.stderr)  # noqa: T201 - no log yet
        sys.exit(1)


def _explain(settings: type[_FromEnvironment], field: str, message: str) -> str:
    problem = "is not set" if message == "Field required" else f"is wrong ({message})"
    return f"pipeline: {field.upper()} {problem}. It is {settings.model_fields[field].description}."
