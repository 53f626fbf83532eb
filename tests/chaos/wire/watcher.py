"""A forwarder that feeds what passes to a protocol for each connection, and carries out its steps one by one."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.wire.steps import Answer, Astray, Drop, Effect, Insert, Pass, Reply, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from chaos.wire.steps import Step, WireProtocol


@dataclass
class Connection:
    """One connection: its protocol, its ends, and what went through it.

    `moved` is held while a piece of one direction is carried out, as nothing comes in between then on the wire; whoever
    is told to wait lets go of it until something has moved.
    """

    protocol: WireProtocol
    client: socket.socket
    server: socket.socket
    steps: list[Step] = field(default_factory=list)
    requests: bytearray = field(default_factory=bytearray)
    replies: bytearray = field(default_factory=bytearray)
    moved: threading.Condition = field(default_factory=threading.Condition)


class Watcher:
    """Stands at one port, 0 for any, and forwards to another until it is left."""

    def __init__(
        self,
        listens: int,
        forwards_to: int,
        protocol: Callable[[], WireProtocol],
        refuses: Callable[[Effect], str] = lambda _: "",
    ) -> None:
        self.connections: list[Connection] = []
        self.effects: list[tuple[Connection, Effect]] = []
        self.torn: list[bytes] = []  # what came in and was not in a step as it was
        self._protocol, self._to = protocol, ("127.0.0.1", forwards_to)
        self._refuses = refuses  # with which error; empty for those that it lets pass
        self._server = socket.create_server(("127.0.0.1", listens))
        self.port: int = self._server.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        ends = [end for one in self.connections for end in (one.client, one.server)]
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for end in (self._server, *ends):
            end.close()

    def outcomes(self, after: int = 0) -> list[tuple[str, str]]:
        """Site and outcome of each effect in the order they were sent; "" while there is none."""
        return [(effect.site, _outcome(connection, effect)) for connection, effect in self.effects[after:]]

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                one = Connection(self._protocol(), client, socket.create_connection(self._to))
                self.connections.append(one)
                for copy in (
                    (one.client, one.server, one.protocol.requests, one.requests),
                    (one.server, one.client, one.protocol.replies, one.replies),
                ):
                    self._threads.append(threading.Thread(target=self._copy, args=(one, *copy)))
                    self._threads[-1].start()

    def _copy(
        self,
        one: Connection,
        source: socket.socket,
        sink: socket.socket,
        tell: Callable[[bytes], Iterator[Step]],
        seen: bytearray,
    ) -> None:
        accounted = bytearray()
        with contextlib.suppress(OSError):
            data = b"first"
            while data:
                data = source.recv(1 << 16)
                seen += data
                with one.moved:
                    for step in self._steps(one, tell(data)):
                        if isinstance(step, Pass | Effect | Answer | Drop):
                            accounted += step.data
                        if isinstance(step, Pass | Effect | Answer | Insert):
                            sink.sendall(step.data)
                        elif isinstance(step, Reply):
                            source.sendall(step.data)
                        elif isinstance(step, Astray):
                            source.shutdown(socket.SHUT_RDWR)
                    one.moved.notify_all()
            sink.shutdown(socket.SHUT_WR)
        if not seen.startswith(accounted):
            self.torn.append(bytes(seen))

    def _steps(self, one: Connection, steps: Iterator[Step]) -> Iterator[Step]:
        """Each step; the next one is asked for when this one has been carried out."""
        for step in steps:
            if isinstance(step, Wait):
                one.moved.notify_all()
                one.moved.wait()
                continue
            error = ""
            if isinstance(step, Effect):
                self.effects.append((one, step))
                error = self._refuses(step)
            instead = list(one.protocol.refuse(step, error)) if error and isinstance(step, Effect) else [step]
            one.steps += [step, *instead] if error else [step]
            yield from instead


def _outcome(connection: Connection, effect: Effect) -> str:
    answers = [step for step in connection.steps if isinstance(step, Answer) and step.number == effect.number]
    return answers[0].outcome if answers else ""
