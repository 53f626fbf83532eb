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
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import faults
from chaos.errors import ChaosError
from chaos.wire.connection import Connection
from chaos.wire.frame import PATIENCE_S, Frame, NotPossible
from chaos.wire.http import Http
from chaos.wire.kafka import Kafka
from chaos.wire.messages import Event, Failed, Fired, Noted, Order
from chaos.wire.points import Points
from chaos.wire.postgres import Postgres
from chaos.wire.recorder import Recorder
from chaos.wire.sockets import owner

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chaos.wire.messages import ArmedFault, OpenLink
    from chaos.wire.steps import Effect, WireProtocol


@dataclass(eq=False)
class Member:
    """One incarnation of one worker."""

    label: str
    role: str
    incarnation: int
    whole_group: bool = True
    pid: int = 0
    is_cut: bool = False
    connections: set[Connection] = field(default_factory=set)
    passed: Counter[str] = field(default_factory=Counter)  # effects that went through, by site


class Link:
    """A listening address of one worker, and the server behind it."""

    def __init__(self, proxy: Proxy, told: OpenLink) -> None:
        self.worker, self.protocol, self.host, self.port = told.worker, told.protocol, told.host, told.port
        self.listens = told.listens
        self.connections = 0
        self.recorder = Recorder(Path(told.record), told.key) if told.record else None
        self._proxy = proxy
        self._socket = socket.create_server(("127.0.0.1", told.listens), backlog=1024)
        self._socket.setblocking(False)
        asyncio.get_running_loop().add_reader(self._socket, self.accept)

    def make(self) -> WireProtocol:
        """A protocol for one connection."""
        if self.protocol == "postgres":
            return Postgres()
        return Http() if self.protocol == "http" else Kafka(self._proxy.fronts(self.worker))

    def accept(self) -> None:
        """Take in everybody who has connected."""
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            while True:
                accepted, _ = self._socket.accept()
                accepted.setblocking(False)
                self._proxy.accepted(self, accepted)


class Proxy:
    """See the module's docstring. `send` is given every event."""

    def __init__(self, send: Callable[[Event], None]) -> None:
        self.send = send
        self.points = Points()
        self.links: list[Link] = []
        self.members: dict[str, Member] = {}
        self._faults: tuple[ArmedFault, ...] = ()
        self._connections = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiters: set[asyncio.Future[None]] = set()
        self._orders: dict[int, asyncio.Future[str]] = {}
        self._order = 0

    # -- who is there --------------------------------------------------------------------------------------------

    def open_link(self, told: OpenLink) -> None:
        """Stand at one more address."""
        self.links.append(Link(self, told))

    def enlist(self, label: str, role: str, incarnation: int, *, whole_group: bool) -> None:
        """The connections of `label` that are accepted from here on are those of this incarnation."""
        self.members[label] = Member(label, role, incarnation, whole_group)

    def accepted(self, link: Link, connection: socket.socket) -> None:
        """A worker has connected."""
        member = self.members.get(link.worker)
        if member is None or member.is_cut:
            connection.close()
            return
        self._connections += 1
        link.connections += 1
        made = Connection(self, link, member, self._connections)
        member.connections.add(made)
        self._start(made.open(connection))

    def fronts(self, worker: str) -> Callable[[str, int], bool]:
        """Whether the wire stands at an address for this worker."""
        ports = {link.listens for link in self.links if link.worker == worker and link.protocol == "kafka"}
        return lambda host, port: host in {"127.0.0.1", "localhost"} and port in ports

    def count(self) -> tuple[int, int]:
        """Connections that are there, and tasks that are at work."""
        return sum(link.connections for link in self.links), len(self._tasks)

    # -- what is done to them ------------------------------------------------------------------------------------

    def arm(self, armed: tuple[ArmedFault, ...]) -> None:
        """Count anew, and wait for these faults."""
        self._faults = armed
        self.points.arm(armed)
        for member in self.members.values():
            member.incarnation = 0

    def disarm(self) -> None:
        """Wait for nothing any more; nobody is left waiting in silence."""
        self.points.disarm()
        for member in self.members.values():
            for connection in list(member.connections):
                if connection.silent:
                    connection.client.reset()

    def carry_out(self, connection: Connection, effect: Effect, points: tuple[str, ...], due: int) -> Frame:
        """Have a fault begin its work on an effect."""
        frame = Frame(connection, effect, points, due)
        self._start(self._carry_out(frame, self._faults[due]))
        return frame

    async def _carry_out(self, frame: Frame, fault: ArmedFault) -> None:
        worker = frame.connection.member.label
        try:
            kind = faults.kind(fault.kind)
            if reason := kind.impossible(frame.effect):
                raise NotPossible(reason)  # noqa: TRY301 - one place says it
            await kind.act(frame, kind.check(fault.value))
            if not frame.did:
                raise NotPossible("it did nothing")  # noqa: TRY301 - likewise
        except Exception as error:  # noqa: BLE001 - a third party's fault may raise anything; the verdict is told
            known = isinstance(error, ChaosError)
            self.send(Failed(time.time(), frame.fault, worker, str(error) if known else f"{error!r}"))
        else:
            self.send(Fired(time.time(), frame.fault, worker, "; ".join(frame.did), frame.killed))
        finally:
            frame.release()

    async def kill(self, frame: Frame) -> tuple[bool, list[str]]:
        """Kill the worker of this frame; whether it was all of it, and what had been delivered and lost its reply."""
        member = frame.connection.member
        pid = 0 if member.whole_group else owner(frame.connection.client_port, member.pid)
        if pid in {0, member.pid}:
            self.cut(member.label)
            await self.order("kill", frame)
            return True, await self.bury(member.label)
        theirs = [one for one in member.connections if owner(one.client_port, member.pid) == pid]
        for connection in theirs:
            connection.cut()
        await self.order("kill", frame, pid)
        return False, await self._bury(theirs)

    def cut(self, label: str) -> None:
        """Let nothing more of a worker through."""
        member = self.members[label]
        member.is_cut = True
        for connection in list(member.connections):
            connection.cut()

    async def bury(self, label: str) -> list[str]:
        """A worker that was cut is dead: end what it has left, and say what had been delivered."""
        member = self.members[label]
        for link in self.links:
            if link.worker == label:
                link.accept()
        return await self._bury(list(member.connections))

    async def _bury(self, connections: list[Connection]) -> list[str]:
        await asyncio.gather(*(connection.bury() for connection in connections))
        return [text for connection in connections for text in connection.lost_replies]

    async def order(self, what: str, frame: Frame, pid: int = 0) -> None:
        """Have the owner of the processes do something with a frame's worker.

        Raises:
            NotPossible: it could not be done.
        """
        self._order += 1
        number = self._order
        done = self._orders[number] = asyncio.get_running_loop().create_future()
        self.send(Order(number, what, frame.connection.member.label, frame.fault, pid))
        if error := await done:
            raise NotPossible(error)

    def carried(self, number: int, error: str) -> None:
        """An order was carried out."""
        if waiting := self._orders.pop(number, None):
            waiting.set_result(error)

    def by_others(self, member: Member, site: str) -> int:
        """How many effects of a kind other processes of its role have had, since they started."""
        return sum(one.passed[site] for one in self.members.values() if one.role == member.role and one is not member)

    async def redeliver(self, link: Link, effect: Effect, seconds: float) -> None:
        """Send an HTTP request on a connection of its own and wait for the whole reply."""
        protocol = Http()
        list(protocol.requests(effect.data))
        reader, writer = await asyncio.open_connection(link.host, link.port)
        try:
            async with asyncio.timeout(seconds):
                writer.write(effect.data)
                while protocol.outstanding and (data := await reader.read(1 << 16)):
                    list(protocol.replies(data))
        except TimeoutError:
            raise NotPossible(f"no reply to the repeated request in {seconds:g} s") from None
        finally:
            writer.close()
        if protocol.outstanding:
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

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.send(Noted(time.time(), "broken", "", f"the wire itself failed: {error!r}"))
