"""Two sockets, and a flow each way between them.

A `Flow` takes in what its source sends, asks the protocol for steps and carries them out, one after the other. It can
be held between two steps; what has come in then waits, and its source is not read any more (back-pressure: also when
the other socket does not take what is written). The two flows are independent, but for `Wait`.
"""

from __future__ import annotations

import asyncio
import fcntl
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.connection import Connection
    from chaos.wire.steps import Step

_HIGH: Final = 1 << 20  # bytes that wait for a slow reader before its writer is no longer read
_SIOCOUTQNSD: Final = 0x894B
_RESET: Final = struct.pack("ii", 1, 0)


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

    def write_eof(self) -> None:
        """It is sent nothing more, and may still send."""
        if self.transport is not None and not self.gone:
            self.transport.write_eof()

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


class Server(End):
    """The server's side: what goes over it is counted, in `traffic`; see `chaos.wire.detour.Traffic`."""

    def __init__(self, connection: Connection, traffic: list[int]) -> None:
        super().__init__(connection)
        self._traffic, self._left = traffic, False

    def data_received(self, data: bytes) -> None:
        """It has sent something."""
        self._traffic[1] += len(data)
        self.out.feed(data)

    def write(self, data: bytes) -> None:
        """Send it something, if it is still there."""
        if not self.gone and self.transport is not None:
            self._traffic[0] += len(data)
        super().write(data)

    def close(self) -> None:
        """Close it when it has been sent everything; that is our doing."""
        self._left = True
        super().close()

    def reset(self) -> None:
        """Close it so that the peer sees a reset; that is our doing too."""
        self._left = True
        super().reset()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed, by whomever."""
        self._traffic[3 if self._left else 2] += 1
        super().connection_lost(error)


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
