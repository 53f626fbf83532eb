"""What a test process and its lane's wire process say to each other: a JSON object a line, over a unix socket.

Commands go to the wire and each is answered by a `Done` of the same number. The wire sends events, and now and then an
`Order`: something that only the owner of the processes can do exactly, answered by a `Carried`.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    pass


# -- commands ------------------------------------------------------------------------------------------------------


class OpenLink(_Message, frozen=True):
    """Stand at 127.0.0.1:`listens` for `worker` and forward to `host`:`port`, reading `protocol`.

    `record` is a file in which an HTTP service's requests and replies are kept, by the field `key` of their bodies.
    """

    number: int
    worker: str
    protocol: str
    listens: int
    host: str
    port: int
    record: str = ""
    key: str = ""


class Reroute(_Message, frozen=True):
    """From here on what connects to the link at 127.0.0.1:`listens` is forwarded to 127.0.0.1:`by`; 0 for no detour."""

    number: int
    listens: int
    by: int


class Mend(_Message, frozen=True):
    """Nothing else is left to do: what stands without a time of its own need not stand any longer."""

    number: int


class Enlist(_Message, frozen=True):
    """From here on connections of `worker`, a replica of `role`, are those of a new incarnation.

    `generation` is what points of its role are named by (`chaos.wire.points`); `life` is never the same for two
    processes of one worker.
    """

    number: int
    worker: str
    role: str
    generation: int
    life: int
    whole_group: bool = True


class Started(_Message, frozen=True):
    """The process of the worker's present incarnation."""

    number: int
    worker: str
    pid: int


class Cut(_Message, frozen=True):
    """Let nothing more of `worker` through, either way."""

    number: int
    worker: str


class Bury(_Message, frozen=True):
    """`worker`, which was cut, is dead: drain and end its connections. The answer says what had been delivered."""

    number: int
    worker: str


class ArmedFault(msgspec.Struct, frozen=True):
    """A fault of a schedule: what is done at which point. `text` is what the schedule calls it.

    `links` are those that a toxic is for, by the ports at which they stand.
    """

    text: str
    role: str
    incarnation: int
    site: str
    key: str
    nth: int
    kind: str
    value: str
    links: tuple[int, ...] = ()


class Arm(_Message, frozen=True):
    """Count anew, every role being in generation 0, and carry out these faults at their points.

    The number of this command is in every event about one of them (`armed`).
    """

    number: int
    faults: tuple[ArmedFault, ...]


class Disarm(_Message, frozen=True):
    """Carry out nothing any more. It is answered when no fault is at work and no connection is left in silence."""

    number: int


class Name(_Message, frozen=True):
    """Look for `key` in effects from now on, and call it `alias`."""

    number: int
    key: str
    alias: str


class Look(_Message, frozen=True):
    """Who cannot be seen? Who is connected directly to one of these addresses (``host:port``), or in no known way."""

    number: int
    addresses: tuple[str, ...]


class Count(_Message, frozen=True):
    """How much is under way? The answer is the number of connections, and that of tasks."""

    number: int


class Carried(_Message, frozen=True):
    """An order was carried out, or why not; `taken` says that its worker will be brought back."""

    order: int
    error: str = ""
    taken: bool = False


Command: TypeAlias = (
    OpenLink | Reroute | Enlist | Started | Cut | Bury | Arm | Mend | Disarm | Name | Look | Count | Carried
)

# -- answers and events --------------------------------------------------------------------------------------------


class Done(_Message, frozen=True):
    """The answer to the command `number`; `error` says why it could not be done."""

    number: int
    found: tuple[str, ...] = ()
    error: str = ""


class Opened(_Message, frozen=True):
    """A worker has connected; connections are numbered over the life of the wire."""

    at: float
    connection: int
    worker: str
    protocol: str


class Closed(_Message, frozen=True):
    """A connection is gone, on both sides."""

    at: float
    connection: int


class Seen(_Message, frozen=True):
    """An effect waits to be let through. `points` are its names: by count, and by each key that it is about.

    `evidence` is what can be found of it in the server, here and in the reply: see `chaos.audit`. `stirs` counts what
    the worker had sent until then that was no effect and may have changed something (`chaos.wire.steps`).
    """

    at: float
    connection: int
    effect: int
    points: tuple[str, ...]
    worker: str
    evidence: tuple[str, ...] = ()
    stirs: int = 0
    repeats: bool = False  # it commits offsets, and none that is new


class Answered(_Message, frozen=True):
    """What became of an effect: done, refused or unclear by the server's word; sent, where it says none.

    An effect that a fault has lost is said to be lost.
    """

    at: float
    connection: int
    effect: int
    outcome: str
    evidence: tuple[str, ...] = ()


class Order(_Message, frozen=True):
    """Do this with the process of that `life`: kill, stop or continue. `pid` is 0 for its whole group.

    Or with `links`, by the ports at which they stand, for the armed fault of that number: spoil or heal.
    """

    order: int
    what: str
    worker: str
    life: int
    pid: int = 0
    links: tuple[int, ...] = ()
    fault: int = 0


class Reached(_Message, frozen=True):
    """A fault has begun its work."""

    at: float
    armed: int
    fault: int


class Stands(_Message, frozen=True):
    """A fault has done its work and stands until nothing else is left to do (`Mend`)."""

    at: float
    armed: int
    fault: int


class Fired(_Message, frozen=True):
    """A fault was carried out, in full: nothing of it is under way any more."""

    at: float
    armed: int
    fault: int
    worker: str
    what: str
    killed: bool = False  # an order to kill was taken
    alone: bool = False  # it waited for somebody else to do the same, and nobody did


class Failed(_Message, frozen=True):
    """A fault was reached and could not be carried out; `unfit`: nor could it ever be, at such an effect."""

    at: float
    armed: int
    fault: int
    worker: str
    reason: str
    killed: bool = False  # likewise
    unfit: bool = False
    displaced: bool = False  # another was due at the same effect, and is carried out


class Noted(_Message, frozen=True):
    """Something that a verdict has to know: bytes that were not understood (`kind` raw), a client led astray."""

    at: float
    kind: str
    worker: str
    text: str


Event: TypeAlias = Done | Opened | Closed | Seen | Answered | Order | Reached | Stands | Fired | Failed | Noted

encode = msgspec.json.Encoder().encode
decode_command = msgspec.json.Decoder(Command).decode
decode_event = msgspec.json.Decoder(Event).decode
