"""What a protocol says about the bytes of one connection.

A protocol does no I/O: bytes in, steps out. It is given whatever arrived, in pieces of any size, from the client with
`requests` and from the server with `replies`, and says step by step what the wire has to do. The bytes of all `Pass`,
`Effect` and `Answer` steps of one direction are, in order, exactly the bytes that came in; so a wire that carries out
every step at once is transparent.

Nothing of an effect is in an earlier step: until the `Effect` has been said, the server knows nothing of it. What may
turn out to be an effect is kept back until enough of it has arrived to name it. An effect that is too long to be kept
(a large HTTP body) is said when its head is complete; the rest follows as `Pass`, and `Delivered` says where it ends.

What a protocol does not understand passes as bytes: it says `Raw` once, with the reason, and from then on nothing but
`Pass` for both directions of this connection. It never raises, whatever the bytes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Outcome: TypeAlias = Literal["done", "refused", "unclear"]


@dataclass(frozen=True, slots=True)
class Pass:
    """Bytes of no interest: send them on."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Effect:
    """A request that changes the world.

    `number` counts the effects of this connection from 1. `site` names the kind, such as ``kafka.produce``. `contents`
    is where a workload's keys are looked for: a readable piece for each thing the effect is about, such as the key and
    value of each record of a batch, decompressed. `answered` is false for what the server is told not to answer.
    """

    number: int
    site: str
    contents: tuple[bytes, ...]
    data: bytes
    answered: bool = True


@dataclass(frozen=True, slots=True)
class Delivered:
    """The effect `number` ended with the bytes of the step before this one."""

    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's reply to an effect, or its first part: ``done``, ``refused`` by a genuine error, or ``unclear``."""

    number: int
    outcome: Outcome
    data: bytes


@dataclass(frozen=True, slots=True)
class Raw:
    """From here on nothing is understood, and why."""

    reason: str


Step: TypeAlias = Pass | Effect | Delivered | Answer | Raw


class WireProtocol(Protocol):
    """One connection's protocol; see the module's docstring."""

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
