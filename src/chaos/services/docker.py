"""Servers in containers: Postgres, Kafka and Toxiproxy from images, by default the official ones.

What an image is told is what the official one understands: Postgres its options and ``POSTGRES_…``, Kafka its settings
as ``KAFKA_…``, Toxiproxy its options. Another image that does so may be named for each. Their data is the container's:
a server that was killed comes back in its own container, and the data goes with that.

The settings are those of servers that are plain processes (`chaos.services.postgres`, `chaos.services.kafka`).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from chaos.errors import ChaosError, UnknownName
from chaos.services import kafka, postgres, toxiproxy
from chaos.services.clients import require_client
from chaos.services.container import Container, Engine
from chaos.services.ports import lease_port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from chaos.services.local import Starters
    from chaos.waiting import Deadline
    from chaos.workers.supervisor import Supervisor

IMAGES: Final = {
    "postgres": "postgres:18",
    "kafka": f"apache/kafka:{kafka.VERSION}",
    "toxiproxy": f"ghcr.io/shopify/toxiproxy:{toxiproxy.VERSION}",
}
"""The images that are used where no other is named."""


def named_images(texts: Iterable[str]) -> dict[str, str]:
    """The images that ``SERVER=IMAGE`` name; what comes later counts.

    Raises:
        ChaosError: a text is no such thing.
        UnknownName: there is no such server.
    """
    named = dict[str, str]()
    for text in texts:
        server, equals, image = text.partition("=")
        if not (equals and image):
            raise ChaosError(f"{text!r} names no image: expected SERVER=IMAGE, such as kafka={IMAGES['kafka']}")
        if server not in IMAGES:
            raise UnknownName("server with an image", server, IMAGES)
        named[server] = image
    return named


class Docker:
    """The engine of a run, spoken to when it is first needed, and what it starts."""

    def __init__(self, supervisor: Supervisor, named: Mapping[str, str]) -> None:
        self._supervisor, self._images = supervisor, {**IMAGES, **named}
        self._engine: Engine | None = None
        self._lock = threading.Lock()  # several servers are started at once

    @property
    def engine(self) -> Engine:
        """See `Engine`."""
        with self._lock:
            if self._engine is None:
                self._engine = Engine(self._supervisor)
            return self._engine

    @property
    def starters(self) -> Starters:
        """What starts each server."""
        return {
            "postgres": lambda _supervisor, _cache, deadline: self._start_postgres(deadline),
            "kafka": lambda _supervisor, _cache, deadline: self._start_kafka(deadline),
            "toxiproxy": lambda _supervisor, _cache, deadline: self._start_toxiproxy(deadline),
        }

    def start(self, name: str, image: str, argv: list[str], env: Mapping[str, str]) -> Container:
        """Start a worker's container; without words, the image's own command. It is removed when it ends.

        Raises:
            MissingPart: the engine does not answer, or does not have the image.
            ChaosError: the engine refused it.
        """
        self.engine.require_image(image, "Worker(image=…)")
        return self.engine.make(name, image, argv or None, env=env, kept=False).begin()

    def close(self) -> None:
        """Remove what was started, if anything was."""
        if self._engine is not None:
            self._engine.close()

    def _start_postgres(self, deadline: Deadline) -> postgres.Postgres:
        require_client("psycopg")
        image = self._image("postgres")
        port = lease_port()
        # Its entry point sets up the data through a unix socket, before it listens anywhere else.
        settings = {name: value for name, value in postgres.SETTINGS.items() if name != "unix_socket_directories"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        env = {
            "POSTGRES_HOST_AUTH_METHOD": "trust",
            "POSTGRES_INITDB_ARGS": "-E UTF8 --locale=C --no-sync",
            "TZ": "UTC",
        }
        container = self.engine.make("postgres", image, ["postgres", "-p", str(port), *options], env=env, kept=True)
        server = postgres.Postgres(postgres.local_dsn(port), container.begin(), container.begin, port)
        server.require_reachable(deadline)
        return server

    def _start_kafka(self, deadline: Deadline) -> kafka.Kafka:
        require_client("confluent_kafka")
        image = self._image("kafka")
        spare = kafka.spare_listeners()
        ports, listeners = kafka.listeners(spare)
        settings = {**kafka.SETTINGS, **listeners, "log.dirs": "/var/lib/kafka/data"}
        env = {f"KAFKA_{name.replace('.', '_').upper()}": value for name, value in settings.items()}
        env |= {
            "CLUSTER_ID": kafka.CLUSTER_ID,
            "KAFKA_HEAP_OPTS": "-Xms256m -Xmx512m",
            "KAFKA_JVM_PERFORMANCE_OPTS": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "KAFKA_JMX_OPTS": " ",  # something, or it makes the runtime listen for whoever wants to manage it
        }
        container = self.engine.make("kafka", image, None, env=env, kept=True)
        server = kafka.Kafka(ports[0].address, container.begin(), container.begin, spare, ports)
        server.require_reachable(deadline)
        return server

    def _start_toxiproxy(self, deadline: Deadline) -> toxiproxy.Toxiproxy:
        image = self._image("toxiproxy")
        port = lease_port()
        argv = ["-host", "127.0.0.1", "-port", str(port)]
        container = self.engine.make("toxiproxy", image, argv, env={"LOG_LEVEL": "info"}, kept=True)
        server = toxiproxy.Toxiproxy(f"http://{port.address}", container.begin(), port)
        server.require_reachable(deadline)
        return server

    def _image(self, server: str) -> str:
        """The image of a server, which the engine has."""
        image = self._images[server]
        self.engine.require_image(image, f"--onecharge-image={server}=IMAGE")
        return image
