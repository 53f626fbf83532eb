"""One connection through the wire: two sockets, a flow each way (`chaos.wire.flow`), a protocol that says what passes.

How a connection ends, if nobody breaks it: as if the wire were not there. An end of one side's stream is passed on when
all before it was; a reset by the server is passed on as a reset, one by the client as an end.

How it is broken: `cut` lets nothing more through, either way, from that moment on. Replies are still read, and thrown
away, so that `bury` can wait until the server has answered everything that it was given; then the server is told that
the client is gone, and has let go of its session when `bury` returns. Where a server does not do that in time, what it
may still do is in `doubts`, and nobody may say that the kill was exact.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from chaos.wire.flow import End, Flow, Server
from chaos.wire.messages import Answered, Closed, Noted, Opened, Seen
from chaos.wire.steps import Answer, Astray, Delivered, Drop, Effect, Given, Insert, Pass, Raw, Reply, Wait

if TYPE_CHECKING:
    import socket

    from chaos.wire.frame import Frame
    from chaos.wire.link import Link
    from chaos.wire.proxy import Member, Proxy
    from chaos.wire.steps import Step

_OVERDUE_S = 0.25
_DRAIN_S = 5.0
_CANCEL_S = 1.0


@dataclass(slots=True)
class _Sent:
    """An effect that was let through: its names, whether a reply comes, whether its last byte is on its way."""

    points: tuple[str, ...]
    effect: Effect
    whole: bool = False

    @property
    def point(self) -> str:
        return self.points[0]

    @property
    def answered(self) -> bool:
        return self.effect.answered


class Connection:
    """See the module's docstring. It belongs to the incarnation that ran when it was accepted."""

    def __init__(self, proxy: Proxy, link: Link, member: Member, number: int) -> None:
        self.proxy, self.link, self.member, self.number = proxy, link, member, number
        self.protocol = link.make()
        self.client, self.server = End(self), Server(self, link.traffic)
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
        self.doubts: list[str] = []  # what the server may still be doing after `leave`
        self.unseen = ""  # why nothing is understood here any more
        self.frame: Frame | None = None  # the one that a fault is working on
        self.is_cut = False
        self.silent = False
        self._forwarded = ""  # the last effect that no reply tells the end of
        self._reopen = False
        self._overdue: asyncio.TimerHandle | None = None

    async def open(self, accepted: socket.socket, port: int) -> None:
        """Connect both sides; `port` is the client's."""
        loop = asyncio.get_running_loop()
        self.client_port = port
        self.proxy.send(Opened(time.time(), self.number, self.member.label, self.link.protocol))
        try:
            await loop.connect_accepted_socket(lambda: self.client, accepted)
            await loop.create_connection(lambda: self.server, *self.link.dials)
        except OSError:  # the client has gone already, or nobody listens
            self.link.traffic[2] += 1
            accepted.close()
            self.client.gone = self.client.gone or self.client.transport is None
            self.server.gone = True
            self.break_off()
            return
        if self.is_cut or self.client.gone:
            self.server.reset()
        else:
            self.go_on()

    def go_on(self) -> None:
        """Let requests through, unless something holds them."""
        started = self.server.transport is not None
        if started and self.frame is None and not (self.is_cut or self.member.parked):
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
        elif kind is Given:
            self.proxy.points.given(cast("Given", step).records)
        elif kind is not Drop:
            self._trouble(cast("Raw | Astray", step))
        return not self.replies.held

    def _effect(self, effect: Effect) -> None:
        repeats = self.proxy.points.repeats(effect)
        points, due = self.proxy.points.arrived(self.member.role, effect)
        evidence = (f"http:{self.link.host}:{self.link.port}",) if self.link.protocol == "http" else effect.evidence
        member = self.member
        what = (points, member.label, evidence, member.stirs, repeats)
        self.proxy.send(Seen(time.time(), self.number, effect.number, *what))
        if due and self.proxy.members.get(self.member.label) is self.member:
            self.requests.held = True
            self.frame = self.proxy.carry_out(self, effect, points, due)
        else:
            self.let_through(effect, points)
        self.proxy.changed()

    def let_through(self, effect: Effect, points: tuple[str, ...]) -> None:
        """Send the effect on."""
        self.unanswered[effect.number] = _Sent(points, effect)
        self.proxy.points.sent(effect)
        if self.link.recorder is not None:
            self.link.recorder.request(self.number, self.member.label, effect)
        self.server.write(effect.data)

    def _delivered(self, number: int) -> None:
        sent = self.unanswered.get(number)
        if sent is not None:
            sent.whole = True
            if not sent.answered:
                del self.unanswered[number]
                self._forwarded = sent.point
                self.proxy.send(Answered(time.time(), self.number, number, "sent"))
                self.proxy.went_through(self.member, sent.points)
        if self.frame is not None and self.frame.effect.number == number:
            self.frame.was_delivered()

    def _answer(self, answer: Answer) -> None:
        sent = self.unanswered.pop(answer.number, None)
        if self.link.recorder is not None:
            self.link.recorder.reply(self.number, answer)
        self.proxy.send(Answered(time.time(), self.number, answer.number, answer.outcome, answer.evidence))
        if sent is not None:
            settle = self.proxy.points.done if answer.outcome == "done" else self.proxy.points.undone
            settle(sent.effect)
            self.proxy.went_through(self.member, sent.points)
        if self.is_cut:
            self.lost_replies.append(f"{sent.point if sent else 'unknown'} ({answer.outcome})")
        elif self.frame is None or not self.frame.keeps(answer):
            self.client.write(answer.data)
        else:
            self.replies.held = True
        self.proxy.changed()

    def _trouble(self, step: Raw | Astray) -> None:
        self.proxy.send(Noted(time.time(), type(step).__name__.lower(), self.member.label, step.reason))
        self.unseen = step.reason
        self.unanswered.clear()
        if isinstance(step, Astray):
            self.break_off()
        self.proxy.changed()

    def _failed(self, error: Exception) -> None:
        text = f"the wire itself failed, reading {self.link.protocol}: {error!r}"
        self.proxy.send(Noted(time.time(), "broken", self.member.label, text))
        self.unseen = text
        self.break_off()

    def _be_patient(self) -> None:
        if not self.protocol.kept:
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None
        elif self._overdue is None:
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
        elif end is self.client or end is self.server:  # not one that was replaced
            end.out.feed(b"")

    def lost(self, end: End, error: Exception | None) -> None:
        """One side is closed."""
        self.ended(end)
        if end is self.server and not self.silent and not self._reopen:
            self.client.reset() if error is not None and not self.is_cut else self.client.close()
        elif end is self.client and (self.requests.finished or self._reopen):
            self.server.close()
        self._forget()
        self.proxy.changed()

    async def reopen(self) -> None:
        """A fresh connection to the server, if it closed the one that there was while a request was held.

        Raises:
            OSError: there is none to be had.
        """
        if not self._reopen or self.is_cut:
            return
        server, old = Server(self, self.link.traffic), self.server
        server.out, server.into = self.replies, self.requests
        try:
            await asyncio.get_running_loop().create_connection(lambda: server, *self.link.dials)
        except OSError:
            self.link.traffic[2] += 1
            raise
        self._reopen = False
        self.replies.source = self.requests.sink = self.server = server
        old.close()
        if self.is_cut:
            server.reset()

    def _requests_end(self) -> None:
        if self.client.gone or self.replies.finished:
            self.server.close()
        else:
            self.server.write_eof()
        if self.replies.finished:
            self.client.close()

    def _replies_end(self) -> None:
        if self.silent:
            return
        if self.server.gone or self.requests.finished:
            self.client.close()
        else:
            self.client.write_eof()
        if self.requests.finished or self.is_cut:
            self.server.close()

    def _forget(self) -> None:
        """If both sides are gone for good. Until then a kill of its worker has to find it."""
        if self.client.gone and self.server.gone and not self._reopen and self in self.member.connections:
            self.member.connections.discard(self)
            self.member.stirred += self.protocol.stirs
            for sent in self.unanswered.values():
                self.proxy.points.undone(sent.effect)
            self.link.connections -= 1
            if self._overdue is not None:
                self._overdue.cancel()
            for what, times in self.protocol.not_understood.items():
                text = f"{self.link.protocol}: {what}, {times} times"
                self.proxy.send(Noted(time.time(), "not-understood", self.member.label, text))
            if self.link.recorder is not None:
                self.link.recorder.lost(self.number)
            self.proxy.send(Closed(time.time(), self.number))

    def break_off(self) -> None:
        """Reset both sides."""
        self.is_cut = self.requests.held = True
        self._reopen = False
        self.client.reset()
        self.server.reset()
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
        self._reopen = False
        self.client.reset()
        self._forget()

    async def leave(self) -> None:
        """End the server's session, and return when it has; what it may still be doing is in `doubts`."""
        farewell = b"" if self.unseen else self.protocol.farewell()
        half = any(not sent.whole for sent in self.unanswered.values())
        if farewell and not self._server_ended():
            if not self.requests.finished:  # the end of the client's stream says it too
                self.server.write(farewell)
            if not await self.proxy.until(self._server_ended, _CANCEL_S):
                await self.proxy.cancel_request(self)
                await self.proxy.until(self._server_ended, _DRAIN_S)
        elif self._forwarded and not half and not self._server_ended():
            # Nobody answers it, so only the server's own end says that it has read it.
            if not self.requests.finished:
                self.server.write_eof()
            await self.proxy.until(self._server_ended, _DRAIN_S)
        ended, bad = self._server_ended(), bool(self.link.bad)
        if bad or not ended:  # on a bad network it may come to the server later, whatever has ended on this side
            why = "is on a bad network" if bad else "was not answered"
            self.doubts += [f"{sent.point} {why}" for sent in self.unanswered.values() if sent.whole]
            self.doubts += [f"nobody answers {self._forwarded}"] if self._forwarded else []
        if farewell and not ended:
            self.doubts += ["a session has not ended"]
        self.server.reset()
        await self.proxy.until(lambda: self.server.gone, _CANCEL_S)

    def _server_ended(self) -> bool:
        return self.server.gone or self.replies.finished

    @property
    def cancel_request(self) -> bytes:
        """What asks a Postgres server, on a connection of its own, to give up what it does for this one."""
        return getattr(self.protocol, "cancel_request", b"")
