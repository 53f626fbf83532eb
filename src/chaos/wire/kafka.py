"""The Kafka protocol: which frames change the world, and what the broker said to them.

Only headers are looked at: four bytes of size, then api, version and correlation id. Frames of an api that is never an
effect pass in the chunks they came in; a large Fetch costs a counter. Frames that may be an effect are kept back until
they are complete, then read; so are the replies to effects, found by their correlation id, and the replies that tell a
client where brokers are: one that names a place which the wire does not front ends the connection. Where somebody looks
for keys, Fetch replies are kept back too, and say which records with such keys they give (`kafka_fetch`).

What is an effect: see `kafka_effects`. What is not, though it changes something in the broker:

- AddPartitionsToTxn, AddOffsetsToTxn: they announce what a transaction is going to touch. Nobody can see that they were
  sent; without the EndTxn, which is the effect, nothing comes of them. They are state.
- InitProducerId without a transactional id: it hands out a number. With one it fences the predecessor and ends its
  transaction, which is an effect.
- JoinGroup, SyncGroup, Heartbeat, and those heartbeats of the newer groups that do not leave: membership, also state.
- Topics created with `validate_only`.

Known limits: a reply with several error codes is ``refused`` if any of them says so, even when some of the partitions
were written. After a SaslHandshake v0 come frames without headers, so the connection is given up as raw. A Produce that
cannot be read is not counted as outstanding, as it may have asked for no reply. Fetch replies of more than 1 MiB pass
in the chunks they came in, whoever looks: the offsets in them are not said. The endpoints at the end of a Fetch reply
that is not kept back are not read, nor those of a ShareFetch that acknowledges nothing; a Metadata reply named the same
brokers before. What one side kept back when the other one turned raw comes out with its
next bytes: a frame begun is a frame that goes on, and waits for nobody.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from chaos.wire.kafka_bodies import NAMES, Malformed, knows, read_reply, read_request
from chaos.wire.kafka_effects import EFFECTS, outcome
from chaos.wire.kafka_evidence import of_reply, of_request, sent
from chaos.wire.kafka_fetch import FETCH, LARGEST, Fetched
from chaos.wire.kafka_refusals import refusal
from chaos.wire.steps import Answer, Astray, Delivered, Drop, Effect, Given, Pass, Raw, Reply, TooLate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.kafka_evidence import Sent
    from chaos.wire.kafka_fetch import Wanted
    from chaos.wire.steps import Step

LIMIT: Final = 100 << 20
"""The broker's own ``socket.request.max.bytes``: a longer frame is none."""

_REQUEST: Final = struct.Struct(">ihhi")
_REPLY: Final = struct.Struct(">ii")
_TLS: Final = b"\x16\x03"
_PRODUCE: Final = 0
_SASL_HANDSHAKE: Final = 17
_METADATA: Final = 3
_WITH_IDS: Final = 10  # the first version of it in which topics have ids
_ASKS: Final = frozenset((1, 2, 3, 9, 10, 12, 18, 23, 32, 60, 68, 71, 72, 75))
"""Apis that only ask, or say that a client is there: Fetch, ListOffsets, Metadata, Heartbeat and the like."""

_BROKERS: Final = {_METADATA: "brokers", 10: "", 60: "brokers"}
"""Apis whose replies are read for where brokers are, and the field behind which they name none."""


class _Awaited(NamedTuple):
    api: int
    version: int
    number: int  # of the effect; 0 for none
    sent: Sent | None = None


class _Lost(Exception):
    """These bytes cannot be of the protocol; the message says why."""


@dataclass(slots=True)
class _Direction:
    """Where the scan of one direction stands.

    `skip` bytes of a frame that passes are still to come; or else `kept` is the beginning of a frame, of which nothing
    is decided before there are `needed` bytes. `length` says how long the frame at a place is and whether it must be
    kept back, `read` says the steps of one that was.
    """

    length: Callable[[bytes, int], tuple[int, bool]]
    read: Callable[[bytes], Iterator[Step]]
    skip: int = 0
    kept: list[bytes] = field(default_factory=list)
    size: int = 0  # of what is kept
    needed: int = 0
    closed: bool = False
    answers: bool = False  # the frame that passes is the reply to something outstanding
    answered: int = 0  # such frames in the step that is being put together

    def keep(self, data: bytes, needed: int) -> None:
        """Decide nothing about `data` before there are `needed` bytes."""
        self.kept, self.size, self.needed = [data], len(data), needed

    def take(self, data: bytes, *, everything: bool) -> bytes:
        """What can be decided about, of what was kept and `data`."""
        if not self.kept:
            return data
        self.kept.append(data)
        self.size += len(data)
        if self.size < self.needed and not everything:
            return b""
        data = b"".join(self.kept)
        self.kept.clear()
        return data

    def pass_over(self, available: int) -> int:
        """How many of that many bytes belong to the frame that passes."""
        size = min(self.skip, available)
        self.skip -= size
        if not self.skip:
            self.answered += self.answers
            self.answers = False
        return size


class Kafka:
    """One connection between a client and a broker; a `chaos.wire.steps.WireProtocol`.

    `fronts` says whether the wire stands at a host and port that a broker tells the client to go to. `topics` are the
    names of topics by their ids, as text: what this connection learns of them is put there, so that connections which
    share it know them all. `wanted` says whether a piece of a Fetch reply holds a key that somebody looks for: it is
    asked about each batch, then about each record of one that it wants. None: nobody looks, and nothing is read.

    `not_understood` counts frames that passed though they might have been effects, have named brokers or held a wanted
    key, and batches whose records could not be read, by what they were.
    """

    def __init__(
        self,
        fronts: Callable[[str, int], bool] = lambda _host, _port: True,
        topics: dict[bytes, bytes] | None = None,
        wanted: Wanted | None = None,
    ) -> None:
        self.not_understood: Counter[str] = Counter()
        self.stirs = 0
        self._fronts = fronts
        self._topics = {} if topics is None else topics
        self._wanted = wanted
        self._read_apis = _BROKERS.keys() if wanted is None else {*_BROKERS, FETCH}
        self._requests = _Direction(self._request_length, self._read_request)
        self._replies = _Direction(self._reply_length, self._read_reply)
        self._awaited: dict[int, deque[_Awaited]] = {}  # by correlation id
        self._outstanding = 0
        self._number = 0
        self._refused = 0
        self._first = True
        self._raw = False
        self._astray = False

    def requests(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the client. Empty data: the client has closed its side."""
        return self._feed(self._requests, data)

    def replies(self, data: bytes) -> Iterator[Step]:
        """What to do with bytes from the server. Empty data: the server has closed its side."""
        return self._feed(self._replies, data)

    def overdue(self) -> Iterator[Step]:
        """Nothing: no client waits for the server in the middle of a frame."""
        yield from ()

    @property
    def kept(self) -> bool:
        """False: no client waits for the server in the middle of a frame."""
        return False

    @property
    def outstanding(self) -> int:
        """How many frames that expect a reply were said, less the replies that have passed; none once it is raw."""
        return self._outstanding

    def refuse(self, effect: Effect, error: str) -> Iterator[Step]:
        """Steps in place of an effect that was said just now; `error` is a name of Kafka's such as NOT_COORDINATOR.

        It is not `Delivered`.

        Raises:
            ValueError: there is no such error, or the effect expects no answer or has it already.
        """
        reply = refusal(effect, error)
        _, _, _, correlation = _REQUEST.unpack_from(effect.data)
        if not any(one.number == effect.number for one in self._awaited.get(correlation, ())):
            raise TooLate(f"nothing can be said any more to effect {effect.number}: it is over")
        return self._refuse(effect, correlation, reply)

    def _refuse(self, effect: Effect, correlation: int, reply: bytes) -> Iterator[Step]:
        self._refused = effect.number
        left = [one for one in self._awaited.pop(correlation, ()) if one.number != effect.number]
        if left:
            self._awaited[correlation] = deque(left)
        self._outstanding -= 1
        yield Drop(effect.data)
        yield Reply(reply)

    def farewell(self) -> bytes:
        """Nothing: the end of the stream says it."""
        return b""

    def _feed(self, side: _Direction, data: bytes) -> Iterator[Step]:
        side.closed = side.closed or not data
        data = side.take(data, everything=self._raw or side.closed)
        start = at = 0  # from start to at it passes
        while at < len(data) and self._understands() and not side.closed:
            if side.skip:
                at += side.pass_over(len(data) - at)
                continue
            try:
                size, matters = side.length(data, at)
            except _Lost as lost:
                yield from self._pass(side, data[start:at])
                start = at
                if self._understands():
                    yield self._give_up(lost)
                continue
            if not matters:
                side.skip = size
                continue
            if size > len(data) - at:
                side.keep(data[at:], size)
                data = data[:at]
                continue
            yield from self._pass(side, data[start:at])
            start = at
            if self._understands():
                start = at = at + size
                yield from side.read(data[at - size : at])
        if not self._astray:  # half a frame at the end will never be an effect
            yield from self._pass(side, data[start:])

    def _understands(self) -> bool:
        return not (self._raw or self._astray)

    def _pass(self, side: _Direction, data: bytes) -> Iterator[Step]:
        if data:
            yield Pass(data)
        self._outstanding, side.answered = max(0, self._outstanding - side.answered), 0

    def _give_up(self, lost: _Lost) -> Raw:
        self._raw = True
        self._awaited.clear()
        self._outstanding = 0
        return Raw(str(lost))

    def _await(self, correlation: int, awaited: _Awaited) -> None:
        self._awaited.setdefault(correlation, deque()).append(awaited)
        self._outstanding += 1

    def _request_length(self, data: bytes, at: int) -> tuple[int, bool]:
        head = data[at : at + _REQUEST.size]
        if self._first and head.startswith(_TLS):
            raise _Lost("TLS: the client encrypts, nothing can be seen")
        _require_size(head, 8)
        if len(head) < _REQUEST.size:
            return len(head) + 1, True
        size, api, version, correlation = _REQUEST.unpack(head)
        if api not in NAMES:
            if self._first:
                raise _Lost(f"not Kafka: the first frame is of an api numbered {api}")
            self.not_understood[f"api {api}"] += 1
        elif api == _SASL_HANDSHAKE and version == 0:
            raise _Lost("SASL handshake v0: the frames after it have no headers")
        elif not knows(api, version):
            if api in EFFECTS or api in self._read_apis:  # a new version of the others is nothing to us
                self.not_understood[f"{NAMES[api]} v{version}"] += 1
        elif api in EFFECTS:
            self._first = False
            return 4 + size, True
        self._first = False
        self.stirs += api not in _ASKS
        if api != _PRODUCE:
            self._await(correlation, _Awaited(api, version, 0))
        return 4 + size, False

    def _read_request(self, frame: bytes) -> Iterator[Step]:
        _, api, version, correlation = _REQUEST.unpack_from(frame)
        try:
            body = read_request(api, version, frame)
            seen = EFFECTS[api](body)
        except Malformed:
            self.not_understood[f"{NAMES[api]} v{version}, malformed"] += 1
            seen = None
        if seen is None:
            self.stirs += api not in _ASKS
            if api != _PRODUCE:
                self._await(correlation, _Awaited(api, version, 0))
            yield Pass(frame)
            return
        self.not_understood.update(seen.not_understood)
        self._number += 1
        number, counts = self._number, sent(api, body)
        evidence = of_request(api, body, counts, self._topics)
        if seen.answered:
            self._await(correlation, _Awaited(api, version, number, counts))
        yield Effect(number, seen.site, seen.contents, frame, seen.answered, evidence)
        if self._refused != number and self._understands():
            yield Delivered(number)

    def _reply_length(self, data: bytes, at: int) -> tuple[int, bool]:
        head = data[at : at + _REPLY.size]
        _require_size(head, 4)
        if len(head) < _REPLY.size:
            return len(head) + 1, True
        size, correlation = _REPLY.unpack(head)
        if correlation in self._awaited:
            if self._matters(self._awaited[correlation][0], size):
                return 4 + size, True
            self._answered(correlation)
            self._replies.answers = True
        return 4 + size, False

    def _matters(self, awaited: _Awaited, size: int) -> bool:
        if awaited.number:
            return True
        short = awaited.api != FETCH or size <= LARGEST
        return short and awaited.api in self._read_apis and knows(awaited.api, awaited.version)

    def _answered(self, correlation: int) -> _Awaited:
        waiting = self._awaited[correlation]
        awaited = waiting.popleft()
        if not waiting:
            del self._awaited[correlation]
        return awaited

    def _read_reply(self, frame: bytes) -> Iterator[Step]:
        api, version, number, counts = self._answered(struct.unpack_from(">i", frame, 4)[0])
        last = "topics" if api == _METADATA and version >= _WITH_IDS else _BROKERS.get(api, "")
        try:
            body = read_reply(api, version, frame, last)
        except Malformed:
            self.not_understood[f"reply to {NAMES[api]} v{version}, malformed"] += 1
            body = None
        if elsewhere := self._elsewhere(body):
            self._astray = True
            name = "".join(word.title() for word in NAMES[api].split("_"))
            yield Astray(f"the {name} reply names broker {elsewhere}, where the wire does not stand")
            return
        if last == "topics" and body is not None:
            self._topics.update((topic.topic_id, topic.name) for topic in body.topics if topic.topic_id and topic.name)
        if number and body is not None:
            yield Answer(number, outcome(api, body), frame, evidence=of_reply(body, counts, self._topics))
        elif number:
            yield Answer(number, "unclear", frame)
        else:
            yield Pass(frame)  # first: nobody can act on it before what it gives is known here
            if api == FETCH and body is not None and self._wanted is not None:
                yield from self._given(Fetched(body, self._topics, self._wanted))
        self._outstanding = max(0, self._outstanding - 1)

    def _given(self, fetched: Fetched) -> Iterator[Step]:
        self.not_understood.update(fetched.unread)
        if fetched.records:
            yield Given(tuple(fetched.records))

    def _elsewhere(self, body: Any) -> str:
        """A broker that a reply names and the wire does not front; an empty host stands for no broker."""
        named = [] if body is None else [body] if hasattr(body, "port") else []
        for several in ("brokers", "coordinators", "node_endpoints"):
            named += getattr(body, several, ())
        for broker in named:
            host = (broker.host or b"").decode(errors="replace")
            if host and not self._fronts(host, broker.port):
                return f"{host}:{broker.port}"
        return ""


def _require_size(head: bytes, least: int) -> None:
    """Say what is lost if this size can be no frame's."""
    if len(head) >= 4:  # noqa: PLR2004 - the size itself
        size = int.from_bytes(head[:4], "big", signed=True)
        if not least <= size <= LIMIT:
            raise _Lost(f"not Kafka: a frame of {size} bytes, beginning {head!r}")
