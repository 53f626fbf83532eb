"""The wire of one lane: links, the workers that use them, and what is done to these.

A link is a listening address that one worker is given instead of a server's own. Each connection is bound, when it is
accepted, to the incarnation that runs then; a stale one can never be taken for its successor's.

How a kill is made exact (`Proxy.kill`), in this order:

1. All connections of the worker are cut: nothing more goes through.
2. It is SIGKILLed, by the test process, which owns it, and its death awaited.
3. What it had connected and nobody had accepted is accepted and thrown away.
4. Whatever had been let through is answered by its server, the answers thrown away; each server has ended the session.
5. Only then is it said that the fault fired, and the next incarnation enlisted.

SIGKILL alone is no cut: what a dead process has written is delivered all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos import faults
from chaos.errors import ChaosError
from chaos.wire.connection import Connection
from chaos.wire.detour import Standing
from chaos.wire.frame import PATIENCE_S, Frame, NotPossible, Unfit
from chaos.wire.http import Http
from chaos.wire.kafka import Kafka
from chaos.wire.link import Link
from chaos.wire.messages import Carried, Event, Failed, Fired, Noted, Order, Reached
from chaos.wire.points import Points, alikes
from chaos.wire.sockets import owners
from chaos.wire.steps import Answer, Delivered, Effect

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Coroutine, Iterator

    from chaos.wire.messages import ArmedFault, Enlist, OpenLink

_KILL_S, _LAST_WORDS_S = 14.0, 4.0  # together less than whoever disarms has patience for
_SERVERS_S = 60.0  # for an order about a server; who carries it out gives up before, and says why


@dataclass(eq=False)
class Member:
    """One incarnation of one worker."""

    label: str
    role: str
    life: int
    whole_group: bool = True
    pid: int = 0
    is_cut: bool = False  # it is being killed
    parked: bool = False  # what connects waits until it is known which of its processes that is
    connections: set[Connection] = field(default_factory=set)
    passed: int = 0  # effects that went through
    stirred: int = 0  # what `stirs` of the connections that are gone

    @property
    def stirs(self) -> int:
        """How many requests of it were no effects and may have changed what a server holds for it."""
        return self.stirred + sum(connection.protocol.stirs for connection in self.connections)


class Proxy:
    """See the module's docstring. `send` is given every event."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self.send = send
        self.points = Points()
        self.links: list[Link] = []
        self.members: dict[str, Member] = {}
        self.closing = False
        self.mending = asyncio.Event()
        self.standing: list[Standing] = []
        self._armed = 0
        self._faults: tuple[ArmedFault, ...] = ()
        self._working: dict[Frame, asyncio.Task[None]] = {}
        self._passed: Counter[tuple[str, str, str]] = Counter()  # by role, worker, and what they are alike in
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._topics: dict[bytes, bytes] = {}  # by id
        self._orders: dict[int, asyncio.Future[Carried]] = {}
        self._order = 0

    # -- who is there --------------------------------------------------------------------------------------------

    def open_link(self, told: OpenLink) -> None:
        """Stand at one more address."""
        self.links.append(Link(self, told))

    def reroute(self, listens: int, by: int) -> None:
        """Forward what connects to a link from here on by a detour, or, with 0, no more."""
        for link in self.links:
            if link.listens == listens:
                link.detour = by

    def enlist(self, told: Enlist) -> None:
        """The connections of a worker that are accepted from here on are those of this incarnation."""
        self.points.enlist(told.role, told.generation)
        self.members[told.worker] = Member(told.worker, told.role, told.life, told.whole_group)

    def started(self, label: str, pid: int) -> None:
        """The process of the present incarnation."""
        self.members[label].pid = pid
        self.changed()

    def accepted(self, link: Link, connection: socket.socket, port: int) -> None:
        """A worker has connected, from this port of its own."""
        member = self.members.get(link.worker)
        if member is None or member.is_cut:
            connection.close()
            return
        self._connections += 1
        link.connections += 1
        made = Connection(self, link, member, self._connections)
        member.connections.add(made)
        self._start(made.open(connection, port))

    def kafka(self, worker: str) -> Kafka:
        """The protocol of one of this worker's connections to Kafka."""
        ports = {link.listens for link in self.links if link.worker == worker and link.protocol == "kafka"}

        def fronts(host: str, port: int) -> bool:
            return host in {"127.0.0.1", "localhost"} and port in ports

        return Kafka(fronts, self._topics, self.points.wanted)

    def count(self) -> tuple[int, int]:
        """Connections that are there, and tasks that are at work."""
        return sum(link.connections for link in self.links), len(self._tasks)

    # -- what is done to them ------------------------------------------------------------------------------------

    def arm(self, number: int, armed: tuple[ArmedFault, ...]) -> None:
        """Count anew, and wait for these faults."""
        self._armed, self._faults = number, armed
        self.mending.clear()
        self.points.arm(armed)
        for member in self.members.values():
            for connection in member.connections:
                if connection.unseen:
                    self.send(Noted(time.time(), "raw", member.label, connection.unseen))

    async def disarm(self) -> None:
        """Wait for nothing any more. On return only what still heals is at work, and nobody waits in silence."""
        self.points.disarm()
        await asyncio.sleep(0)  # a task that is cancelled before it has begun never says how it ended
        killing = [frame for frame in self._working if frame.kills]
        for frame in self._working.keys() - killing:
            self._working[frame].cancel()
        await self.until(lambda: not any(frame.kills for frame in killing), _KILL_S)
        for frame in self._working.keys() & killing:  # it has killed, and does something more
            self._working[frame].cancel()
        if self._working:
            await asyncio.wait(self._working.values(), timeout=_LAST_WORDS_S)
        for member in self.members.values():
            for connection in list(member.connections):
                if connection.silent:
                    connection.client.reset()

    def carry_out(self, connection: Connection, effect: Effect, points: tuple[str, ...], due: list[int]) -> Frame:
        """Have the first of the faults that are due begin its work on an effect. The others' points have passed by."""
        frame = Frame(connection, effect, points)
        worker, armed = connection.member.label, self._armed
        for other in due[1:]:
            reason = f"{self._faults[due[0]].text} was due at the same effect"
            self.send(Failed(time.time(), armed, other, worker, reason, displaced=True))
        self.send(Reached(time.time(), armed, due[0]))
        first = self._faults[due[0]]
        act = self._spoil if first.links else self._carry_out
        self._working[frame] = self._start(act(frame, armed, due[0], first))
        return frame

    async def _spoil(self, frame: Frame, armed: int, number: int, fault: ArmedFault) -> None:
        try:
            await Standing(self, frame, armed, number, fault).carry_out()
        finally:
            del self._working[frame]

    async def _carry_out(self, frame: Frame, armed: int, number: int, fault: ArmedFault) -> None:
        worker, reason, unfit = frame.connection.member.label, "", False
        try:
            kind = faults.kind(fault.kind)
            reason = kind.impossible(frame.effect)
            unfit = bool(reason)
            if not reason:
                await kind.act(frame, kind.check(fault.value))
                reason = "" if frame.did else "it did nothing"
        except asyncio.CancelledError:
            reason = "it was still at work when the drill ended"
        except ChaosError as error:
            reason, unfit = str(error), isinstance(error, Unfit)
        except BaseException as error:  # noqa: BLE001 - a third party's fault may raise anything; the verdict is told
            reason = repr(error)
        try:
            await frame.finish()
        except ChaosError as error:
            reason = reason or str(error)
        finally:
            del self._working[frame]
            if reason:
                self.send(Failed(time.time(), armed, number, worker, reason, frame.killed, unfit))
            else:
                did = "; ".join(frame.did)
                self.send(Fired(time.time(), armed, number, worker, did, frame.killed, frame.alone))

    async def kill(self, frame: Frame) -> list[str]:
        """Kill the worker of this frame, and say what had been delivered and lost its reply.

        Raises:
            NotPossible: it could not be killed, or what was delivered may still be carried out.
        """
        member = frame.connection.member
        if member.is_cut or frame.connection.is_cut or member.parked:
            raise NotPossible("its worker was being killed already")
        if member.whole_group:
            self.cut(member)
            carried = await self.order("kill", frame)
            landed, doubts = await self.bury(member)
        else:
            carried, landed, doubts = await self._kill_owner(frame, member)
        if carried.error:
            raise NotPossible(carried.error)
        if doubts:
            raise NotPossible(f"it is dead, but something of it may still be carried out: {', '.join(doubts)}")
        return landed

    async def _kill_owner(self, frame: Frame, member: Member) -> tuple[Carried, list[str], list[str]]:
        """Kill the one process that owns the connection: stopped first, so that it makes no new ones unseen."""
        await self.until(lambda: member.pid > 0)
        member.parked = True
        try:
            frame.connection.cut()
            pid = self._owners(member).get(frame.connection.client_port, 0)
            if not pid:
                raise NotPossible("nobody owns its connection any more")
            await self.order("stop", frame, pid)
            self._accept(member)
            owners = self._owners(member)
            theirs = {one for one in member.connections if owners.get(one.client_port, pid) == pid}
            for connection in theirs:
                connection.cut()
            carried = await self.order("kill", frame, pid)
            self._accept(member)
            owners = self._owners(member)
            theirs |= {one for one in member.connections if one.client_port not in owners}
            for connection in theirs:
                connection.cut()
            return carried, *(await self._bury([*theirs]))
        finally:
            member.parked = False
            for connection in list(member.connections):
                connection.go_on()

    def _owners(self, member: Member) -> dict[int, int]:
        return owners(member.pid, {link.listens for link in self.links if link.worker == member.label})

    def _accept(self, member: Member) -> None:
        for link in self.links:
            if link.worker == member.label:
                link.accept()

    def cut(self, member: Member) -> None:
        """Let nothing more of a worker through."""
        member.is_cut = True
        for connection in list(member.connections):
            connection.cut()

    async def bury(self, member: Member) -> tuple[list[str], list[str]]:
        """A worker that was cut is dead: end what it has left. What was delivered; what may still be carried out."""
        if self.members.get(member.label) is member:
            self._accept(member)
        return await self._bury(list(member.connections))

    async def _bury(self, connections: list[Connection]) -> tuple[list[str], list[str]]:
        await asyncio.gather(*(connection.bury() for connection in connections))
        landed = [text for connection in connections for text in connection.lost_replies]
        return landed, [text for connection in connections for text in connection.doubts]

    async def order(
        self, what: str, frame: Frame, pid: int = 0, *, links: tuple[int, ...] = (), fault: int = 0
    ) -> Carried:
        """Have the owner of the processes do something with a frame's worker, or with links; how that went."""
        self._order += 1
        number, member = self._order, frame.connection.member
        done = self._orders[number] = asyncio.get_running_loop().create_future()
        self.send(Order(number, what, member.label, member.life, pid, links, fault))
        try:  # not `wait_for`: Python 3.11's loses a cancellation that comes together with the answer
            await asyncio.wait([done], timeout=_SERVERS_S if links else 3 * PATIENCE_S)
        finally:
            del self._orders[number]
        if not done.done():
            return Carried(number, f"nobody carried out the order to {what} it")
        carried: Carried = done.result()
        frame.killed = frame.killed or carried.taken
        return carried

    async def stop(self, frame: Frame, *, go_on: bool = False) -> None:
        """SIGSTOP, or SIGCONT, a frame's worker.

        Raises:
            NotPossible: it could not be done.
        """
        member, pid = frame.connection.member, 0
        if not member.whole_group:
            await self.until(lambda: member.pid > 0)
            pid = self._owners(member).get(frame.connection.client_port, 0)
            if not pid:
                raise NotPossible("nobody owns its connection any more")
        carried = await self.order("continue" if go_on else "stop", frame, pid)
        if carried.error:
            raise NotPossible(carried.error)

    def carried(self, carried: Carried) -> None:
        """An order was carried out."""
        waiting = self._orders.get(carried.order)
        if waiting is not None and not waiting.done():
            waiting.set_result(carried)

    def went_through(self, member: Member, points: tuple[str, ...]) -> None:
        """An effect was answered, or delivered for good."""
        member.passed += 1
        for alike in alikes(points):
            self._passed[member.role, member.label, alike] += 1
        self.changed()

    def by_others(self, member: Member, points: tuple[str, ...]) -> int:
        """How many effects of this kind, about a key of these, other processes of its role have had."""
        alike = alikes(points)
        return sum(
            count
            for (role, label, of), count in self._passed.items()
            if role == member.role and label != member.label and of in alike
        )

    def unseen(self) -> Iterator[str]:
        """The connections of which nothing can be seen."""
        for member in self.members.values():
            for connection in member.connections:
                if connection.unseen:
                    yield f"{member.label}: what its connection did could not be seen: {connection.unseen}"

    async def redeliver(self, connection: Connection, effect: Effect, seconds: float) -> None:
        """Send an HTTP request on a connection of its own and wait for the whole reply.

        Raises:
            NotPossible: the request was not kept whole, or there is no reply.
        """
        protocol, link = Http(), connection.link
        if not any(isinstance(step, Delivered) for step in protocol.requests(effect.data)):
            raise NotPossible("the request is too long, or came too slowly, to be kept whole")
        self._connections += 1
        number, replied = self._connections, False
        again = Effect(1, effect.site, effect.contents, effect.data)
        if link.recorder is not None:
            link.recorder.request(number, connection.member.label, again)
        reader, writer = await asyncio.open_connection(*link.dials)
        try:
            async with asyncio.timeout(seconds):
                writer.write(effect.data)
                data = b"first"
                while data and not (replied and not protocol.outstanding):
                    data = await reader.read(1 << 16)
                    for step in protocol.replies(data):
                        if isinstance(step, Answer):
                            replied = True
                            if link.recorder is not None:
                                link.recorder.reply(number, step)
        except TimeoutError:
            raise NotPossible(f"no reply to the repeated request in {seconds:g} s") from None
        finally:
            writer.close()
            if link.recorder is not None:
                link.recorder.lost(number)
        if not replied:
            raise NotPossible("the server closed the connection of the repeated request without a reply")

    async def cancel_request(self, connection: Connection) -> None:
        """Ask a Postgres server to give up what it does for a connection, if it told how."""
        request = connection.cancel_request
        if request:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(connection.link.host, connection.link.port)
                writer.write(request)
                writer.close()

    # -- waiting -------------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_S) -> bool:
        """Wait until `condition`, which is looked at whenever something has changed; false when it did not come."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not condition():
            if (left := deadline - loop.time()) <= 0:
                return False
            waiter = loop.create_future()
            self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=left)
            finally:
                self._waiters.discard(waiter)
        return True

    def changed(self) -> None:
        """Something has changed that somebody may wait for."""
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _start(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.send(Noted(time.time(), "broken", "", f"the wire itself failed: {error!r}"))
