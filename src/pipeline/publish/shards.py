"""Which part of the outbox a polling relay publishes, so that several of them never work on the same order.

An order belongs to one of sixteen shards by a hash of its id, a shard to one relay, and a relay is in the table
`relays` until its lease runs out by Postgres's clock. Each calls `lead` from time to time: its lease begins anew, it
takes its fair share of what is free, and gives up what is more than that. It calls it only when everything it has sent
to Kafka has been settled, so what changes hands is at rest.

A relay with a name of its own (`RELAY_NAME`) that was killed takes its shards over as soon as it is back. Without one,
each process is somebody new, and its predecessor's shards rest until the lease runs out. A second process with the same
name ends what the first may do: the first one reads nothing more, marks nothing more, and is told why.

What a lease cannot do: a process that is stopped between its look at the outbox and its word to Kafka, and wakes when
the lease is over, sends what another has sent by then. Readers pass over it, as over what comes twice after a crash.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from uuid import uuid4

if TYPE_CHECKING:
    import psycopg

    from pipeline.settings import RelaySettings

log = logging.getLogger(__name__)

LEAD = "select lead_shards(%s, %s, %s, %s)"
LEAVE = "delete from relays where name = %s and token = %s"


class NameTaken(Exception):
    """Another process has started under this relay's name."""


class Shards:
    """The part of one relay, known by its name and by a token that no other process has."""

    def __init__(self, settings: RelaySettings) -> None:
        self.name = settings.relay_name or uuid4().hex
        self.token = uuid4()
        self._lease_s = settings.relay_lease_s
        self._led: list[int] | None = None
        self._starting = True
        self._due = 0.0

    def lead(self, connection: psycopg.Connection) -> None:
        """Begin the lease anew when a third of it is over, and share with whoever is there.

        Raises:
            NameTaken: another process has started under this name.
        """
        now = time.monotonic()
        if now < self._due:
            return
        asked = [self.name, self.token, self._lease_s, self._starting]
        [[led]] = connection.execute(LEAD, asked).fetchall()
        if led is None:
            raise NameTaken(f"another process has started as relay {self.name!r}: give each a RELAY_NAME of its own")
        if led != self._led:
            log.info("Leading the shards %s of the outbox.", led)
        self._led, self._due, self._starting = led, now + self._lease_s / 3, False

    @property
    def rest_s(self) -> float:
        """Seconds until `lead` has something to do."""
        return max(0.0, self._due - time.monotonic())

    def leave(self, connection: psycopg.Connection) -> None:
        """Let the others have everything at once."""
        connection.execute(LEAVE, [self.name, self.token])
