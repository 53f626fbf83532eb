"""The wire process of one lane: the proxy, and its conversation with the test process.

It is run as a worker is, by ``module:function``, and ends when the test process closes the conversation.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
from typing import TYPE_CHECKING

import uvloop

from chaos.wire.messages import (
    Answered,
    Arm,
    Bury,
    Carried,
    Closed,
    Command,
    Count,
    Cut,
    Disarm,
    Done,
    Enlist,
    Look,
    Mend,
    Name,
    Opened,
    OpenLink,
    Reroute,
    Seen,
    Started,
    decode_command,
    encode,
)
from chaos.wire.proxy import Proxy
from chaos.wire.sockets import HIDDEN, Watch

if TYPE_CHECKING:
    from chaos.wire.messages import Event

SOCKET_VARIABLE = "ONECHARGE_WIRE"


_REPORTS = (Seen, Answered, Opened, Closed)
_REPORT_S = 0.002

_DIRECTLY = "is connected to {} directly, around the wire, where no effect is seen"
_HIDDEN = "is another user's, so it cannot be seen whether it has gone around the wire: be that user, or root"


class Conversation(asyncio.Protocol):
    """Commands in, answers and events out. What is only reported goes out with others, a moment later.

    Each time that it is woken the test process takes time which, on a small machine, the workers would have had.
    """

    def __init__(self) -> None:
        self.over = asyncio.get_running_loop().create_future()
        self._proxy = Proxy(self.send)
        self._watch = Watch()
        self._rest = b""
        self._out: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The test process is there."""
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """It is gone, and so are we."""
        del error
        self._proxy.closing = True
        if not self.over.done():
            self.over.set_result(None)

    def send(self, event: Event) -> None:
        """Send an event, in its turn: at once if somebody waits for it."""
        if not isinstance(event, _REPORTS):
            asyncio.get_running_loop().call_soon(self._flush)
        elif not self._out:
            asyncio.get_running_loop().call_later(_REPORT_S, self._flush)
        self._out.append(encode(event))

    def _flush(self) -> None:
        if not self._out:
            return
        lines, self._out = self._out, []
        self._transport.write(b"\n".join([*lines, b""]))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """Carry out commands."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            command = decode_command(line)
            if isinstance(command, Carried):
                self._proxy.carried(command)
            else:
                task = asyncio.get_running_loop().create_task(self._do_and_say(command))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _do_and_say(self, command: Command) -> None:
        try:
            found = self._do(command)
            if isinstance(command, Bury):
                landed, doubts = await self._proxy.bury(self._proxy.members[command.worker])
                error = f"something may still be carried out: {', '.join(doubts)}" if doubts else ""
                self.send(Done(command.number, tuple(landed), error))
                return
            if isinstance(command, Disarm):
                await self._proxy.disarm()
        except Exception as error:  # noqa: BLE001 - whatever it is, the test process has to hear of it
            self.send(Done(command.number, error=f"{type(error).__name__}: {error}"))  # type: ignore[union-attr]
        else:
            self.send(Done(command.number, found))  # type: ignore[union-attr]

    def _do(self, command: Command) -> tuple[str, ...]:  # noqa: C901 - a line or two for each kind of command
        proxy = self._proxy
        match command:
            case OpenLink():
                proxy.open_link(command)
            case Reroute(_, listens, by):
                proxy.reroute(listens, by)
            case Mend():
                proxy.mending.set()
            case Enlist():
                proxy.enlist(command)
            case Started(_, worker, pid):
                proxy.started(worker, pid)
            case Cut(_, worker):
                proxy.cut(proxy.members[worker])
            case Arm(number, faults):
                proxy.arm(number, faults)
            case Name(_, key, alias):
                proxy.points.name(key, alias)
            case Count():
                return tuple(map(str, proxy.count()))
            case Look(_, addresses):
                return self._look(addresses)
        return ()

    def _look(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        proxy = self._proxy
        real = {(host, int(port)) for host, _, port in (one.rpartition(":") for one in addresses)}
        met = self._watch.around({one.pid for one in proxy.members.values() if one.pid}, real)
        direct = [
            f"{one.label} {_DIRECTLY.format(address) if address != HIDDEN else _HIDDEN}"
            for one in proxy.members.values()
            for address in met.get(one.pid, ())
        ]
        return (*direct, *proxy.unseen())


async def _run() -> None:
    _, conversation = await asyncio.get_running_loop().create_unix_connection(Conversation, os.environ[SOCKET_VARIABLE])
    await conversation.over


def main() -> None:
    """Run until the conversation is over."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 1 << 16)), hard))
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # connections are cycles, and few; messages are many, and none
    uvloop.run(_run())
