"""What a protocol says about the bytes of one connection.

A protocol does no I/O: bytes in, steps out. It is given whatever arrived, in pieces of any size, from the client with
`requests` and from the server with `replies`, and says step by step what the wire has to do. The wire carries out one
step before it asks for the next, and may stop in the middle (a frame is held): nothing behind the present step has been
decided or counted then. It asks for the steps of one piece of a direction before it gives that direction the next.

Every byte that came in is in exactly one `Pass`, `Effect`, `Answer` or `Drop` of its direction, in order. Where there
is no `Drop` and no `Insert`, what goes out is what came in.

Nothing of an effect is in an earlier step: until the `Effect` has been said, the server can have done nothing of it.
What may turn out to be an effect is kept back until enough of it has arrived to name it. An effect that is too long to
be kept (a large HTTP body) is said when its head is complete; the rest follows as `Pass`, and `Delivered` says where it
ends.

What a protocol does not understand passes as bytes: it says `Raw` once, with the reason, and from then on nothing but
`Pass` for both directions of this connection. It never raises, whatever the bytes are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections import Counter
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
    is where a workload's keys are looked for: pieces of what the effect is about, decompressed. `answered` is false for
    what the server is told not to answer. `evidence` is what an independent observer of the server would find of it, as
    far as that is known before it:

    ======================================== ==========================================================================
    ``xid:<n>``                              Postgres commits a transaction that has this id, of 32 bits
    ``offset:<group>:<topic>/<n>:<offset>``  Kafka keeps this offset for a group and a partition
    ``txn:<id>``                             Kafka ends the transaction of the producer with this transactional id
    ``sent:<topic>/<n>:<count>``             Kafka may append so many records to a partition, and says nothing of it
    ======================================== ==========================================================================

    """

    number: int
    site: str
    contents: tuple[bytes, ...]
    data: bytes
    answered: bool = True
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Delivered:
    """The effect `number` ended with the bytes of the step before this one."""

    number: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The server's reply to an effect, or its first part: ``done``, ``refused`` by a genuine error, or ``unclear``.

    `contents` is where keys are looked for that the server made. `evidence` is what the reply adds to the effect's:
    ``log:<topic>/<n>:<first>-<last>``, the offsets, both included, at which Kafka has the records that it was sent.
    """

    number: int
    outcome: Outcome
    data: bytes
    contents: tuple[bytes, ...] = ()
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Given:
    """What the last `Pass` gives to the client and somebody looks for: a place in a log, an offset, and the record.

    It carries copies: to leave it out changes nothing of what goes through.
    """

    records: tuple[tuple[str, int, bytes], ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """Bytes of the wire's own: send them on as if they had come in here."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Drop:
    """Bytes that end here: the server's answers to what was inserted, or what an insertion replaces."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Reply:
    """Bytes of the wire's own, back to where these came from: the refusal of encryption, or of a request."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing more can be said of this direction until something has come in the other one. Ask again then."""


@dataclass(frozen=True, slots=True)
class Astray:
    """From here on the client would leave the wire: it is told an address that the wire does not stand at.

    Nothing of this connection goes any further; the kept bytes are not delivered.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Raw:
    """From here on nothing is understood, and why."""

    reason: str


Step: TypeAlias = Pass | Effect | Delivered | Answer | Given | Insert | Drop | Reply | Wait | Astray | Raw


class TooLate(ValueError):
    """What could have been said to an effect cannot be any more: it is over, or has its answer."""


class WireProtocol(Protocol):
    """One connection's protocol; see the module's docstring.

    `not_understood` counts what passed though it might have been an effect, by what it was. `stirs` counts requests
    that are no effects and may change what the server holds for this client: a lock, a membership, unfinished work.
    """

    not_understood: Counter[str]
    stirs: int

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""

    def overdue(self) -> Iterator[Step]:
        """What to do with requests kept back for so long that the client must be waiting for the server."""

    @property
    def kept(self) -> bool:
        """Whether requests are kept back that only more bytes of the client would complete."""

    @property
    def outstanding(self) -> int:
        """How many requests, of any kind, were said and have not been answered in full. An effect counts once said."""

    def refuse(self, effect: Effect, error: str) -> Iterator[Step]:
        """Steps, in place of the effect's own bytes, by which it is refused with a genuine error and has no effect.

        They may be said when nothing before the effect is outstanding.

        Raises:
            ValueError: nothing of that name can be said to this effect; the message names what can.
            TooLate: it could have been.
        """

    def farewell(self) -> bytes:
        """What tells the server, in the middle of whatever it is, that the client has gone; empty where EOF does."""
