"""Outages: what befalls a whole server, as plain data with a text form.

In a schedule (`chaos.schedule`) the server stands where a link would, and the point says when it happens::

    kafka:kill@payment/http.post#1          all its processes are killed, and it is started again at once
    postgres:kill=2@payment/http.post#1     likewise, after two seconds
    postgres:freeze=2@relay/kafka.produce   it stands still for two seconds
    kafka:restart@payment/http.post#1       it is ended in order, and started again
    postgres:full=2@payment/http.post#1     its file system is full for two seconds; if that ends it, it is started

A server is Postgres, Kafka, or a trusted worker. It comes back with its data, at its ports (`chaos.services.server`).
The effect at whose point that happens waits until the server is gone, or has wanted room in vain, and goes on then.
Only a lane with servers of its own (``session.lane(own_servers=True)``) may have such faults of Postgres and Kafka:
others' drills would break. Only one that gives each a small file system (``room_mb=200``) may have these filled up.
"""

from __future__ import annotations

from dataclasses import dataclass

from chaos.errors import ChaosError, UnknownName
from chaos.toxics import SECONDS, TOXICS, Bad

OUTAGES = {"kill": 0.0, "freeze": 1.0, "restart": 0.0, "full": 1.0}
"""What can befall a server, and for how many seconds it is away where nothing is said; its own start comes on top."""
MOST_S = 60.0


@dataclass(frozen=True)
class Outage:
    """A server is away for so many `seconds`: by `kind`, ``kill``, ``freeze``, ``restart`` or ``full``."""

    kind: str
    seconds: float

    @classmethod
    def parse(cls, kind: str, value: str) -> Outage:
        """What ``kind=value`` says in a schedule.

        Raises:
            UnknownName: nothing of that name befalls servers.
            ChaosError: the value is no number of seconds that makes sense.
        """
        if kind not in OUTAGES:
            raise UnknownName("outage", kind, OUTAGES)
        if value and not (SECONDS.fullmatch(value) and 0 < float(value) <= MOST_S):
            raise ChaosError(f"{kind}={value}: expected {kind}=SECONDS, up to {MOST_S:g}")
        return cls(kind, float(value) if value else OUTAGES[kind])


def befalls(kind: str, value: str) -> Bad | Outage:
    """What a link or a server of a schedule meets.

    Raises:
        UnknownName: it is no toxic, nor an outage.
        ChaosError: the value means nothing to it.
    """
    if kind in OUTAGES:
        return Outage.parse(kind, value)
    if kind in TOXICS:
        return Bad.parse(kind, value)
    raise UnknownName("toxic, nor outage,", kind, [*TOXICS, *OUTAGES])
