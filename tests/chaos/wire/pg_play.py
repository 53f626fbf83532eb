"""A conversation of a client with a `Server` through the protocol, without I/O; every byte is accounted for."""

from __future__ import annotations

import itertools
import random
import struct
from typing import TYPE_CHECKING

from chaos.wire.postgres import Postgres
from chaos.wire.postgres_messages import message
from chaos.wire.steps import Answer, Delivered, Drop, Effect, Insert, Pass, Raw, Reply, Wait
from tests.chaos.wire.pg_client import (
    COPY_DONE,
    H,
    S,
    bind,
    close,
    data,
    describe,
    execute,
    parse,
    query,
    run,
    start_up,
    tags,
)
from tests.chaos.wire.pg_server import GREETING, Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos.wire.steps import Step
    from tests.chaos.wire.pg_client import Message


HELLO = start_up(user="x")
CALL = message(b"F", struct.pack("!IHHHH", 957, 0, 0, 0, 0))
ADD, BLOCK = "INSERT order-1", run("BEGIN") + run("INSERT order-2") + run("COMMIT")
PARTS = [
    query("SELECT ROWS"),
    query(ADD),
    query("INSERT ROWS"),
    query(f"{ADD}; SELECT 1"),
    query(f"BEGIN; {ADD}; COMMIT"),
    query(f"BEGIN; {ADD}; COMMIT; {ADD}"),
    query("BEGIN") + query(ADD) + query("COMMIT"),
    query("BEGIN") + query(ADD) + query("ROLLBACK"),
    query("BEGIN") + run(ADD) + S + query("FAIL") + query("COMMIT"),
    query("INSERT LATE"),
    query("CALL x()"),
    query("FAIL"),
    query(""),
    query("SELECT 'half"),
    run(ADD) + S,
    run("INSERT ROWS") + S,
    run("INSERT LATE") + S,
    run(ADD) + H + run(ADD) + S,
    run(ADD) + run("FAIL") + run(ADD) + S,
    run("SELECT 1") + S,
    run("CALL x()") + S,
    BLOCK + S,
    BLOCK * 3 + S,
    (BLOCK + S) * 2,
    run("BEGIN") + S + run(ADD) + S + run("COMMIT") + S,
    parse(ADD, "p") + S + bind(b"1", None, name="p", portal="q") + describe("q") + execute("q") + close("p") + S,
    query("COPY t FROM STDIN") + data("order-1\n") + data("order-2\n") + COPY_DONE,
    query("COPY t FROM STDIN") + data("order-1\n") + message(b"f", b"no\0"),
    run("COPY t FROM STDIN") + S + data("order-1\n") + COPY_DONE + S,
    CALL,
    S,
]


def pieces(whole: bytes, dice: random.Random) -> list[bytes]:
    """The same in pieces."""
    longest = dice.choice((1, 9, 100, 5000))
    cuts = list(itertools.accumulate(dice.randint(1, longest) for _ in range(len(whole))))
    cuts = [0, *(at for at in cuts if at < len(whole)), len(whole)]
    return [whole[at:end] for at, end in itertools.pairwise(cuts)]


class Play:
    """The wire's part is played as `chaos.wire.connection` does it, which carries out a step before the next.

    `cut` says into which pieces what the server says is cut, `mutate` what becomes of it on the way. `met` is asked
    about each effect: a SQLSTATE to refuse it with.
    """

    def __init__(
        self,
        server: Server | None = None,
        *,
        cut: Callable[[bytes], list[bytes]] = lambda data: [data],
        mutate: Callable[[bytes], bytes] = lambda data: data,
        met: Callable[[Effect], str] = lambda _: "",
    ) -> None:
        self.protocol = Postgres()
        self.server = server or Server()
        self.steps: list[tuple[str, Step]] = []
        self.client_has = bytearray()
        self.had: list[int] = []  # so many bytes, at each effect
        self.before_raw = 0
        self.raw = ""
        self.unforeseen = 0  # commits without an effect that was said before
        self._foreseen = 0
        self._cut, self._mutate, self.met = cut, mutate, met
        self._went_in = {">": bytearray(), "<": bytearray()}
        self._came_out = {">": bytearray(), "<": bytearray()}
        self._requests: Iterator[Step] | None = None
        self._waiting: list[bytes] = []  # from the client
        self._said: list[bytes] = []  # from the server

    def client_sends(self, data: bytes) -> None:
        """Everything that this makes happen."""
        self._waiting.append(data)
        moved = True
        while moved:
            moved = self._pump_requests() or self._pump_replies()

    def end(self) -> None:
        """The server closes, and then the client."""
        for step in self.protocol.replies(b""):
            self._reply(step)
        self.client_sends(b"")
        assert self._requests is None
        self.check()

    def check(self) -> None:
        """Every byte that came in is in one step of its direction, in order."""
        assert self._came_out == self._went_in

    @property
    def effects(self) -> list[Effect]:
        """All effects."""
        return [step for _, step in self.steps if isinstance(step, Effect)]

    @property
    def answers(self) -> list[tuple[int, str]]:
        """All outcomes."""
        return [(step.number, step.outcome) for _, step in self.steps if isinstance(step, Answer)]

    def _note(self, side: str, step: Step) -> None:
        if isinstance(step, Raw):
            assert not self.raw
            self.raw = step.reason
        else:
            assert isinstance(step, Pass) or not self.raw or self._was_under_way(step)
        self.steps.append((side, step))
        if isinstance(step, Pass | Effect | Answer | Drop):
            self._came_out[side] += step.data

    def _was_under_way(self, step: Step) -> bool:
        return isinstance(step, Delivered | Drop | Wait)

    def _pump_requests(self) -> bool:
        if self._requests is None:
            if not self._waiting:
                return False
            data = self._waiting.pop(0)
            self._went_in[">"] += data
            self.before_raw += 0 if self.raw else len(data)
            self._requests = self.protocol.requests(data)
        for step in self._requests:
            self._note(">", step)
            if isinstance(step, Wait):
                return False
            if isinstance(step, Effect):
                self._effect(step)
            elif isinstance(step, Pass | Insert):
                self._to_server(step.data)
            elif isinstance(step, Reply):
                self.client_has += step.data
        self._requests = None
        return True

    def _effect(self, effect: Effect) -> None:
        self.had.append(len(self.client_has))
        error = self.met(effect)
        if not error:
            self._to_server(effect.data)
            return
        del self._came_out[">"][len(self._came_out[">"]) - len(effect.data) :]
        for step in self.protocol.refuse(effect, error):
            self._note(">", step)
            if isinstance(step, Insert):
                self._to_server(step.data)

    def _to_server(self, data: bytes) -> None:
        if not self.server.gone:
            committed = len(self.server.committed)
            said = self._mutate(self.server.feed(data))
            if len(self.server.committed) > committed and not self.raw:
                self.unforeseen += len(self.effects) == self._foreseen
                self._foreseen = len(self.effects)
            self._said += [piece for piece in self._cut(said) if piece]

    def _pump_replies(self) -> bool:
        if not self._said:
            return False
        data = self._said.pop(0)
        self._went_in["<"] += data
        self.before_raw += 0 if self.raw else len(data)
        for step in self.protocol.replies(data):
            self._reply(step)
        return True

    def _reply(self, step: Step) -> None:
        self._note("<", step)
        if isinstance(step, Pass | Insert | Answer):
            self.client_has += step.data


def play(*sent: bytes, seed: int | None = None, server: Server | None = None) -> Play:
    """A conversation from its first byte to its last; in pieces if there is a seed."""
    dice = random.Random(seed)
    played = Play(server, cut=lambda said: [said] if seed is None else pieces(said, dice))
    for one in [HELLO, *sent]:
        for piece in [one] if seed is None else pieces(one, dice):
            played.client_sends(piece)
    played.end()
    return played


def messages(whole: bytes) -> list[Message]:
    """What the client has, message by message."""
    found, at = [], 0
    while at < len(whole):
        [length] = struct.unpack_from("!I", whole, at + 1)
        found.append((chr(whole[at]), whole[at + 5 : at + 1 + length]))
        at += 1 + length
    return found


def seen(played: Play) -> list[str]:
    """The tags and errors that the client has."""
    return tags(messages(bytes(played.client_has[len(GREETING) :])))
