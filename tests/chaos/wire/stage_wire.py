"""A proxy in the test's own loop: raw TCP servers behind it, raw clients before it, orders that a test answers.

Everything else about a race can be set exactly here: when a server answers, closes or stops reading, how long an order
to kill takes and whether it succeeds, and between which two turns of the loop a drill ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import os
import socket
import struct
import time
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import uvloop

from chaos.armed import armed_fault
from chaos.schedule import Schedule
from chaos.services.ports import Port, lease_port
from chaos.wire import messages
from chaos.wire.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from typing import Self

    Serve = Callable[["Served", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

E = TypeVar("E", bound=messages.Event)
P = ParamSpec("P")

POST = b'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 22\r\n\r\n{"tag": "abc", "n": 1}'
PUT = POST.replace(b"POST", b"PUT")
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok"
WITHIN_S = 10.0
MOMENT_S = 0.1
_RESET = struct.pack("ii", 1, 0)


class Served:
    """A raw TCP server. `got` is what it has read: when, on its how manieth connection, what (empty for the end)."""

    def __init__(self, serve: Serve) -> None:
        self.got: list[tuple[float, int, bytes]] = []
        self.connections = 0
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> Self:
        """Listen."""
        self.server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self.server.sockets[0].getsockname()[1])
        return self

    def read(self, data: bytes, number: int) -> None:
        """Something was read."""
        self.got.append((time.time(), number, data))

    @property
    def requests(self) -> list[bytes]:
        """The methods of what it was sent, in order."""
        return [data.partition(b" ")[0] for _, _, data in self.got if data]

    async def close(self) -> None:
        """Listen no more, and let go of everybody."""
        self.server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await self._serve(self, reader, writer)
        writer.transport.abort()


async def answer(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer each request."""
    number = served.connections
    while data := await reader.read(1 << 16):
        served.read(data, number)
        writer.write(CREATED)
    served.read(b"", number)


async def say_nothing(served: Served, reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    """Read, and never answer, nor close."""
    number = served.connections
    while data := await reader.read(1 << 16):
        served.read(data, number)
    await asyncio.sleep(WITHIN_S)


class Client:
    """A raw client of a link."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        """Send."""
        self.writer.write(data)

    async def hears(self) -> str:
        """What comes next: ``created``, another text, ``end`` or ``reset``."""
        try:
            data = await asyncio.wait_for(self.reader.read(1 << 16), WITHIN_S)
        except ConnectionError:
            return "reset"
        return "created" if data.startswith(b"HTTP/1.1 201") else data.decode() or "end"

    def reset(self) -> None:
        """Go, without a word."""
        reset(self.writer)


def reset(writer: asyncio.StreamWriter) -> None:
    """Close a stream so that its peer sees a reset."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


class Stage:
    """A proxy with a worker ``w`` of life 0. Orders are carried out `order_s` later, with `order_error`."""

    def __init__(self) -> None:
        self.events: list[messages.Event] = []
        self.proxy = Proxy(self._hear)
        self.order_s, self.order_error = 0.0, ""
        self.at_reached: Callable[[], None] = lambda: None
        self.at_carried: Callable[[], None] = lambda: None
        self._ports: list[Port] = []
        self._servers: list[Served] = []
        self._clients: list[Client] = []
        self._number = 0
        self.enlist()

    def enlist(self, life: int = 0) -> None:
        """What connects from here on is this process of the worker."""
        self.proxy.enlist(messages.Enlist(0, "w", "w", life, life))

    async def serve(self, serve: Serve = answer) -> Served:
        """One more server."""
        self._servers.append(await Served(serve).start())
        return self._servers[-1]

    def link(self, port: int, protocol: str = "http", record: str = "") -> int:
        """A link of the worker to a server's port."""
        self._ports.append(lease_port())
        listens = self._ports[-1].number
        self.proxy.open_link(messages.OpenLink(0, "w", protocol, listens, "127.0.0.1", port, record, "tag"))
        return listens

    async def linked(self, serve: Serve = answer) -> tuple[Served, int]:
        """One more server and a link to it."""
        served = await self.serve(serve)
        return served, self.link(served.port)

    async def connect(self, link: int, data: bytes = b"") -> Client:
        """A connection of the worker, on which this is sent."""
        client = Client(*await asyncio.open_connection("127.0.0.1", link))
        self._clients.append(client)
        client.send(data)
        return client

    def arm(self, schedule: str = "") -> int:
        """Count anew and wait for these faults; the number that their events carry."""
        self._number += 1
        self.proxy.arm(self._number, tuple(map(armed_fault, Schedule.parse(schedule).faults)))
        return self._number

    def all(self, kind: type[E]) -> list[E]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def kills(self) -> list[messages.Order]:
        """The orders to kill."""
        return [order for order in self.all(messages.Order) if order.what == "kill"]

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for a condition."""
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110 - of what a server has got, nothing tells the test
                await asyncio.sleep(0.001)

    async def reached(self, faults: int = 1) -> None:
        """Wait until so many faults have begun their work."""
        await self.until(lambda: len(self.all(messages.Reached)) >= faults)

    async def fired(self) -> messages.Fired:
        """Wait until a fault has fired."""
        await self.until(lambda: self.all(messages.Fired))
        return self.all(messages.Fired)[0]

    async def failed(self) -> messages.Failed:
        """Wait until a fault could not be carried out."""
        await self.until(lambda: self.all(messages.Failed))
        return self.all(messages.Failed)[0]

    async def nothing_left(self) -> None:
        """Wait until the wire has no connection, no task, and no member that knows one."""
        members = self.proxy.members.values()
        await self.until(lambda: self.proxy.count() == (0, 0) and not any(one.connections for one in members))

    async def close(self) -> None:
        """End everything."""
        for link in self.proxy.links:
            asyncio.get_running_loop().remove_reader(link._socket)
            link._socket.close()
            if link.recorder is not None:
                os.close(link.recorder._file)
        for client in self._clients:
            client.writer.transport.abort()
        for member in self.proxy.members.values():
            for connection in list(member.connections):
                connection.break_off()
        for server in self._servers:
            await server.close()
        for port in self._ports:
            port.close()
        await asyncio.sleep(0)

    def _hear(self, event: messages.Event) -> None:
        self.events.append(event)
        if isinstance(event, messages.Order):
            carried = messages.Carried(event.order, self.order_error, taken=event.what == "kill")
            asyncio.get_running_loop().call_later(self.order_s, self._carried, carried)
        elif isinstance(event, messages.Reached):
            self.at_reached()

    def _carried(self, carried: messages.Carried) -> None:
        self.proxy.carried(carried)
        self.at_carried()


def on_a_stage(test: Callable[Concatenate[Stage, P], Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a test in a loop like the wire's, with a stage as its first argument."""

    async def play(*args: P.args, **kwargs: P.kwargs) -> None:
        stage = Stage()
        try:
            await test(stage, *args, **kwargs)
        finally:
            await stage.close()

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        uvloop.run(play(*args, **kwargs))

    del run.__wrapped__  # pytest would take its first argument for a fixture
    _, *others = inspect.signature(test).parameters.values()
    run.__signature__ = inspect.Signature(others)  # type: ignore[attr-defined]
    return run
