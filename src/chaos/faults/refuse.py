"""``refuse=ERROR``: the request has no effect and is answered with a genuine error of its protocol.

What the server itself would say: a SQLSTATE such as 40001 to a commit (the transaction is rolled back), the name of an
error such as NOT_COORDINATOR to a Kafka request, a status such as 429 or 503, with Retry-After, to an HTTP request.
This reaches retry code that lost packets never do. With nothing given it is the most ordinary one: 40001, 503, or, for
Kafka, NOT_COORDINATOR to a group's requests and NOT_LEADER_OR_FOLLOWER to a produce.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.faults import FaultKind

if TYPE_CHECKING:
    from chaos.wire.frame import Frame

_ERROR = re.compile(r"[0-9A-Z]{5}|[45][0-9]{2}|[A-Z_]+")


class Refuse(FaultKind):
    """Say no in the server's place."""

    name = "refuse"

    def check(self, value: str) -> str:
        """An error of one of the protocols; whether it can be said to this request is known when it is there."""
        if value and not _ERROR.fullmatch(value):
            raise ChaosError(f"{self.name}={value}: expected an error, such as refuse=40001, =NOT_COORDINATOR or =503")
        return value

    async def act(self, frame: Frame, value: str) -> None:
        """Let the earlier replies through, refuse."""
        await frame.earlier()
        frame.refuse(value or _ordinary(frame.effect.site))


def _ordinary(site: str) -> str:
    service = site.partition(".")[0]
    if site == "kafka.produce":
        return "NOT_LEADER_OR_FOLLOWER"
    return {"postgres": "40001", "kafka": "NOT_COORDINATOR"}.get(service, "503")
