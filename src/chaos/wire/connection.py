"""One connection through the wire: two sockets, a flow each way, a protocol that says what passes.

A `Flow` takes in what its source sends, asks the protocol for steps and carries them out, one after the other. It can
be held between two steps; what has come in then waits, and its source is not read any more (back-pressure: also when
the other socket does not take what is written). The two flows are independent, but for `Wait`.

How a connection ends, if nobody breaks it: as if the wire were not there. An end of one side's stream is passed on when
all before it was; a reset is passed on as a reset.

How it is broken: `cut` lets nothing more through, either way, from that moment on. Replies are still read, and thrown
away, so that `bury` can wait until the server has answered everything that it was given; then the server is told that
the client is gone, and has let go of its session when `bury` returns.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from chaos.wire.messages import Answered, Closed, Noted, Opened, Seen
from chaos.wire.steps import Answer, Astray, Delivered, Drop, Effect, Insert, Pass, Raw, Reply, Wait

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from chaos.wire.frame import Frame
    from chaos.wire.proxy import Link, Member, Proxy
    from chaos.wire.steps import Step

_HIGH = 1 << 20  # bytes that wait for a slow reader before its writer is no longer read
_OVERDUE_S = 0.25
_DRAIN_S = 5.0
_CANCEL_S = 1.0
_SIOCOUTQNSD = 0x894B
_RESET = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class _Sent:
    """An effect that was let through: its first name, whether a reply comes, whether its last byte is on its way."""

    point: str
    site: str
    answered: bool
    whole: bool = False


class End(asyncio.Protocol):
    """One of a connection's two sockets."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.transport: asyncio.Transport | None = None
        self.gone = False
        self.full = False
        self.out: Flow  # what it sends
        self.into: Flow  # what it is sent

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(_HIGH)

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        self.out.feed(data)

    def eof_received(self) -> bool:
        """It will send nothing more, and may still read."""
        self.connection.ended(self)
        return True

    def pause_writing(self) -> None:
        """It does not read as fast as it is sent."""
        self.full = True
        self.into.throttle()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.full = False
        self.into.throttle()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed, by whomever."""
        self.gone = True
        self.connection.lost(self, error)

    def write(self, data: bytes) -> None:
        """Send it something, if it is still there."""
        if data and not self.gone and self.transport is not None:
            self.transport.write(data)

    def close(self) -> None:
        """Close it when it has been sent everything."""
        if self.transport is not None:
            self.transport.close()
        self.gone = self.gone or self.transport is None

    def reset(self) -> None:
        """Close it so that the peer sees a reset; what is not sent yet never will be."""
        if self.transport is not None and not self.gone:
            own: Any = self.transport.get_extra_info("socket")
            own.setsockopt(1, 13, _RESET)  # SOL_SOCKET, SO_LINGER
            self.transport.abort()
        self.gone = self.gone or self.transport is None

    @property
    def unsent(self) -> int:
        """Bytes that were written and have not left this process and its kernel's queue."""
        if self.transport is None or self.gone:
            return 0
        own: Any = self.transport.get_extra_info("socket")
        [queued] = struct.unpack("i", fcntl.ioctl(own.fileno(), _SIOCOUTQNSD, b"\0" * 4))
        return self.transport.get_write_buffer_size() + int(queued)


def _nothing() -> None:
    pass


class Flow:
    """What one side sends, on its way to the other."""

    def __init__(self, source: End, sink: End, tell: Callable[[bytes], Iterator[Step]]) -> None:
        self.source, self.sink = source, sink
        self.held = False
        self.finished = False  # the end of the stream was passed on
        self.other: Flow
        self.act: Callable[[Any], bool]  # carry out a step; false: ask for no more now
        self.failed: Callable[[Exception], None]
        self.rest: Callable[[], None] = _nothing  # a piece was worked off
        self.end: Callable[[], None]  # the end of the stream has come through
        self.void = False  # what comes out is thrown away
        self.sunk = False  # what goes in is
        self.steps: Iterator[Step] | None = None
        self._tell = tell
        self._waiting: deque[bytes] = deque()
        self._ending = False
        self._last = False
        self._pumping = False
        self._paused = False

    def feed(self, data: bytes) -> None:
        """Take in what the source has sent; empty for its end, which may be said twice."""
        if self.sunk:
            if not data:
                self.source.close()
            return
        if self._ending:
            return
        self._ending = not data
        self._waiting.append(data)
        self.pump()
        if self._waiting:
            self.throttle()

    def pump(self) -> None:
        """Carry out as many steps as may be."""
        if self._pumping:
            return
        self._pumping = moved = True
        try:
            while moved and not self.held:
                moved = self._pump()
        except Exception as error:  # noqa: BLE001 - a protocol's own fault is told, and nothing of its connection counts
            self.failed(error)
        self._pumping = False
        if self._paused:
            self.throttle()

    def _pump(self) -> bool:
        """One piece, or one step that stops it; false when there is nothing more to do now."""
        if self.steps is None:
            if not self._waiting:
                return False
            data = self._waiting.popleft()
            self._last = not data
            self.steps = self._tell(data)
        for step in self.steps:
            if not self.act(step) or self.held:
                return False
        self.steps = None
        self.rest()
        if self._last:
            self.finished = True
            self.end()
        if self.other.steps is not None and not self.other.held:
            self.other.pump()
        return True

    def insert(self, steps: Iterator[Step]) -> None:
        """Carry out these steps, when nothing else is under way."""
        if self.steps is None and not self._waiting:
            self.steps = steps
            self.pump()

    def sink_in(self) -> None:
        """Throw away what has come in and what will."""
        self.sunk = True
        self._waiting.clear()
        self.steps = None
        self.throttle()
        if self._ending:
            self.source.close()

    def throttle(self) -> None:
        """Read the source, or not."""
        pause = bool(self._waiting) or (self.sink.full and not self.void)
        transport = self.source.transport
        if pause == self._paused or transport is None or self.source.gone:
            return
        self._paused = pause
        if pause:
            transport.pause_reading()
        elif not transport.is_closing():
            transport.resume_reading()


class Connection:
    """See the module's docstring. It belongs to the incarnation that ran when it was accepted."""

    def __init__(self, proxy: Proxy, link: Link, member: Member, number: int) -> None:
        self.proxy, self.link, self.member, self.number = proxy, link, member, number
        self.protocol = link.make()
        self.client, self.server = End(self), End(self)
        self.requests = Flow(self.client, self.server, self.protocol.requests)
        self.replies = Flow(self.server, self.client, self.protocol.replies)
        self.requests.other, self.replies.other = self.replies, self.requests
        self.requests.act, self.replies.act = self._request, self._reply
        self.requests.failed = self.replies.failed = self._failed
        self.requests.rest, self.replies.rest = self._be_patient, self.proxy.changed
        self.requests.end, self.replies.end = self._requests_end, self._replies_end
        self.client.out = self.server.into = self.requests
        self.server.out = self.client.into = self.replies
        self.requests.held = True  # until the server is there
        self.client_port = 0
        self.unanswered: dict[int, _Sent] = {}  # by the effect's number
        self.lost_replies: list[str] = []
        self.frame: Frame | None = None  # the one that a fault is working on
        self.is_cut = False
        self.silent = False
        self.raw = False
        self._reopen = False
        self._overdue: asyncio.TimerHandle | None = None

    async def open(self, accepted: socket.socket) -> None:
        """Connect both sides."""
        loop = asyncio.get_running_loop()
        self.client_port = accepted.getpeername()[1]
        self.proxy.send(Opened(time.time(), self.number, self.member.label, self.link.protocol))
        await loop.connect_accepted_socket(lambda: self.client, accepted)
        try:
            await loop.create_connection(lambda: self.server, self.link.host, self.link.port)
        except OSError:
            self.server.gone = True
            self.break_off()
            return
        if self.client.gone:
            self.server.close()
        elif not self.is_cut:
            self.requests.held = False
            self.requests.pump()
            self.requests.throttle()

    # -- steps ---------------------------------------------------------------------------------------------------

    def _request(self, step: Step) -> bool:
        kind = type(step)
        if kind is Pass or kind is Insert:
            self.server.write(step.data)  # type: ignore[union-attr]
        elif kind is Effect:
            self._effect(cast("Effect", step))
        elif kind is Delivered:
            self._delivered(cast("Delivered", step).number)
        elif kind is Reply:
            self.client.write(cast("Reply", step).data)
        elif kind is Wait:
            return False
        elif kind is not Drop:
            self._trouble(cast("Raw | Astray", step))
        return not self.requests.held

    def _reply(self, step: Step) -> bool:
        kind = type(step)
        if kind is Pass or kind is Insert:
            if not self.is_cut:
                self.client.write(step.data)  # type: ignore[union-attr]
        elif kind is Answer:
            self._answer(cast("Answer", step))
        elif kind is Reply:
            self.server.write(cast("Reply", step).data)
        elif kind is Wait:
            return False
        elif kind is not Drop:
            self._trouble(cast("Raw | Astray", step))
        return not self.replies.held

    def _effect(self, effect: Effect) -> None:
        points, due = self.proxy.points.arrived(self.member.role, self.member.incarnation, effect)
        self.proxy.send(Seen(time.time(), self.number, effect.number, points, self.member.label))
        if due is None:
            self.let_through(effect, points[0])
        else:
            self.requests.held = True
            self.frame = self.proxy.carry_out(self, effect, points, due)
        self.proxy.changed()

    def let_through(self, effect: Effect, point: str) -> None:
        """Send the effect on."""
        self.unanswered[effect.number] = _Sent(point, effect.site, effect.answered)
        if self.link.recorder is not None:
            self.link.recorder.request(self, effect)
        self.server.write(effect.data)

    def _delivered(self, number: int) -> None:
        sent = self.unanswered.get(number)
        if sent is not None:
            sent.whole = True
            if not sent.answered:
                del self.unanswered[number]
                self.member.passed[sent.site] += 1
                self.proxy.changed()
        if self.frame is not None and self.frame.effect.number == number:
            self.frame.was_delivered()

    def _answer(self, answer: Answer) -> None:
        sent = self.unanswered.pop(answer.number, None)
        if self.link.recorder is not None:
            self.link.recorder.reply(self, answer)
        self.proxy.send(Answered(time.time(), self.number, answer.number, answer.outcome))
        if sent is not None:
            self.member.passed[sent.site] += 1
        if self.is_cut:
            self.lost_replies.append(f"{sent.point if sent else 'unknown'} ({answer.outcome})")
        elif self.frame is None or not self.frame.keeps(answer):
            self.client.write(answer.data)
        else:
            self.replies.held = True
        self.proxy.changed()

    def _trouble(self, step: Raw | Astray) -> None:
        self.proxy.send(Noted(time.time(), type(step).__name__.lower(), self.member.label, step.reason))
        self.raw = True
        self.unanswered.clear()
        if isinstance(step, Astray):
            self.break_off()
        self.proxy.changed()

    def _failed(self, error: Exception) -> None:
        text = f"the wire itself failed, reading {self.link.protocol}: {error!r}"
        self.proxy.send(Noted(time.time(), "broken", self.member.label, text))
        self.break_off()

    def _be_patient(self) -> None:
        if self.protocol.kept and self._overdue is None:
            self._overdue = asyncio.get_running_loop().call_later(_OVERDUE_S, self._be_patient_no_more)

    def _be_patient_no_more(self) -> None:
        self._overdue = None
        if self.protocol.kept and not self.requests.held:
            self.requests.insert(self.protocol.overdue())

    # -- the end -------------------------------------------------------------------------------------------------

    def ended(self, end: End) -> None:
        """One side sends nothing more. A server that tires while a request is held is asked again when it is not."""
        waits = self.frame is not None and self.frame.waits
        if end is self.server and waits and not self.is_cut and not self.protocol.farewell():
            self._reopen = True
        else:
            end.out.feed(b"")

    def lost(self, end: End, error: Exception | None) -> None:
        """One side is closed."""
        self.ended(end)
        if end is self.server and not self.silent and not self._reopen:
            self.client.reset() if error is not None and not self.is_cut else self.client.close()
        elif end is self.client and self.requests.finished:
            self.server.close()
        if self.client.gone and self.server.gone:
            self._forget()
        self.proxy.changed()

    async def reopen(self) -> None:
        """A fresh connection to the server, if it closed the one that there was while a request was held."""
        if self._reopen:
            self._reopen = False
            self.server.close()
            server = End(self)
            server.out, server.into = self.replies, self.requests
            self.replies.source = self.requests.sink = self.server = server
            await asyncio.get_running_loop().create_connection(lambda: server, self.link.host, self.link.port)

    def _requests_end(self) -> None:
        if self.client.gone or self.replies.finished:
            self.server.close()
        elif self.server.transport is not None and not self.server.gone:
            self.server.transport.write_eof()
        if self.replies.finished:
            self.client.close()

    def _replies_end(self) -> None:
        if self.silent:
            return
        if self.server.gone or self.requests.finished:
            self.client.close()
        elif self.client.transport is not None and not self.client.gone:
            self.client.transport.write_eof()
        if self.requests.finished or self.is_cut:
            self.server.close()

    def _forget(self) -> None:
        if self in self.member.connections:
            self.member.connections.discard(self)
            self.link.connections -= 1
            if self._overdue is not None:
                self._overdue.cancel()
            for what, times in self.protocol.not_understood.items():
                text = f"{self.link.protocol}: {what}, {times} times"
                self.proxy.send(Noted(time.time(), "not-understood", self.member.label, text))
            if self.link.recorder is not None:
                self.link.recorder.lost(self)
            self.proxy.send(Closed(time.time(), self.number))

    def break_off(self) -> None:
        """Reset both sides."""
        self.is_cut = True
        self.requests.held = True
        self.client.reset()
        self.server.reset()
        if self.client.gone and self.server.gone:
            self._forget()

    def cut(self) -> None:
        """Let nothing more through, either way; replies are read and thrown away."""
        self.is_cut = self.requests.held = self.replies.void = True
        self.replies.held = False
        self.replies.pump()
        self.replies.throttle()

    async def bury(self) -> None:
        """After `cut`: wait until the server has answered what it was given, and end its session."""

        def drained() -> bool:
            done = not any(sent.whole for sent in self.unanswered.values())
            return done or self.server.gone or self.replies.finished

        if self.server.transport is not None:
            await self.proxy.until(drained, _DRAIN_S)
            await self.leave()
        self.lost_replies += [f"{sent.point} (no reply)" for sent in self.unanswered.values() if sent.whole]
        self.client.reset()

    @property
    def cancel_request(self) -> bytes:
        """What asks a Postgres server, on a connection of its own, to give up what it does for this one."""
        return getattr(self.protocol, "cancel_request", b"")

    async def leave(self) -> None:
        """End the server's session, and return when it has."""
        farewell = b"" if self.raw else self.protocol.farewell()

        def ended() -> bool:
            return self.server.gone or self.replies.finished

        if farewell and not ended():
            self.server.write(farewell)
            if not await self.proxy.until(ended, _CANCEL_S):
                await self.proxy.cancel_request(self)
                await self.proxy.until(ended, _DRAIN_S)
        self.server.close()
        await self.proxy.until(lambda: self.server.gone, _CANCEL_S)
