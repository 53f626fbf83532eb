"""An effect that a fault is working on, and what a fault can do with it.

While a fault works, its connection's requests wait: first the effect itself, and once that was delivered, whatever is
behind it. Replies go on to the client, but for one that the fault asked for. When the fault's `act` has returned, an
effect that was not delivered, lost or refused is, and everything flows again.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.wire.messages import Answered
from chaos.wire.steps import TooLate

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.wire.connection import Connection
    from chaos.wire.steps import Answer, Effect

PATIENCE_S = 10.0


class NotPossible(ChaosError):
    """A fault that cannot be carried out here; the message says why."""


class Unfit(NotPossible):
    """A fault that could never be carried out at such an effect."""


class Frame:
    """See the module's docstring. `did` is what has been done to it so far, in words."""

    def __init__(self, connection: Connection, effect: Effect, points: tuple[str, ...]) -> None:
        self.connection, self.effect, self.points = connection, effect, points
        self.did: list[str] = []
        self.kills = False  # is killing, which is not broken off any more
        self.killed = False  # an order to kill was taken
        self.alone = False  # somebody else was waited for, and nobody came
        self._proxy = connection.proxy
        self._sent = self._delivered = self._gone = False  # gone: it will not be sent any more
        self._frozen = False
        self._keep = False
        self._answer: Answer | None = None

    # -- what a fault asks for -----------------------------------------------------------------------------------

    async def earlier(self) -> None:
        """Wait until everything that this connection sent before is answered and the client has the replies."""
        connection, own = self.connection, 1 if self.effect.answered else 0

        def answered() -> bool:
            return connection.protocol.outstanding <= own or bool(connection.unseen)

        await self._until(answered, "the replies to what was sent before it")
        for _ in range(int(PATIENCE_S * 1000)):  # nothing tells when the kernel has sent it
            if not connection.client.unsent:
                return
            await asyncio.sleep(0.001)
        raise NotPossible("the client does not read the replies to what it sent before")

    async def deliver(self) -> None:
        """Send it to the server, whole; nothing that is behind it."""
        try:
            await self.connection.reopen()
        except OSError as error:
            raise NotPossible(f"the server closed the connection, and there is no other to be had: {error}") from error
        self._send()
        await self._until(lambda: self._delivered, "the rest of the request")

    async def exchange(self) -> Answer | None:
        """Deliver it and wait for its reply, which the client does not get yet; None if there will be none."""
        if not self.effect.answered:
            await self.deliver()
            return None
        self._keep = True
        await self.deliver()
        await self._until(lambda: self._answer is not None, "its reply")
        return self._answer

    async def kill(self) -> None:
        """SIGKILL the worker. On return it is dead and nothing of it is under way anywhere."""
        self.kills = self._gone = True
        try:
            landed = await self._proxy.kill(self)
        finally:
            self.kills = False
            self._proxy.changed()
        self._frozen = False
        self.did.append("was ended by SIGKILL" + (f"; delivered, reply lost: {', '.join(landed)}" if landed else ""))

    async def lose(self, how: str) -> None:
        """Let the client have nothing more: by ``reset``, or in silence (``silent``), its socket staying open.

        The server's side is ended in both cases, and on return the server has let go of its session.
        """
        connection = self.connection
        self._require_there()
        self._gone = True
        connection.silent = how == "silent"
        connection.cut()
        if not connection.silent:
            connection.client.reset()
        else:
            connection.requests.sink_in()
        if not self._sent:
            self._proxy.send(Answered(time.time(), connection.number, self.effect.number, "lost"))
            self._proxy.points.undone(self.effect)
        await connection.leave()
        if connection.doubts:
            raise NotPossible(f"the server may still carry it out: {', '.join(connection.doubts)}")
        self.did.append("lost its connection" if how == "reset" else "hears nothing more on its connection")

    async def freeze(self) -> None:
        """SIGSTOP the worker."""
        self._require_there()
        self._frozen = True
        await self._proxy.stop(self)
        self.did.append("was frozen")

    async def thaw(self) -> None:
        """SIGCONT the worker."""
        self._frozen = False
        await self._proxy.stop(self, go_on=True)

    async def another_effect(self, seconds: float) -> bool:
        """Wait until one more effect of the same process went through; False if none did in that time."""
        member = self.connection.member
        before = member.passed
        return await self._watch(lambda: member.passed > before, seconds)

    async def successor(self, seconds: float) -> bool:
        """Wait until another process of the role had such an effect, about the same key; False if none had."""

        def by_others() -> int:
            return self._proxy.by_others(self.connection.member, self.points)

        before = by_others()
        came = await self._watch(lambda: by_others() > before, seconds)
        self.alone = not came
        return came

    async def repeat(self) -> None:
        """Deliver the same bytes once more, on a connection of its own, and wait for the reply, which is dropped."""
        await self._proxy.redeliver(self.connection, self.effect, PATIENCE_S)
        self.did.append("delivered twice")

    def refuse(self, error: str) -> None:
        """Have it answered with a genuine error, without effect.

        Raises:
            Unfit: nothing of that name can be said to it.
        """
        self._require_there()
        try:
            steps = self.connection.protocol.refuse(self.effect, error)
            first = next(steps, None)
        except ValueError as reason:
            raise (NotPossible if isinstance(reason, TooLate) else Unfit)(str(reason)) from reason
        self._gone = True
        if first is not None:
            self.connection.requests.act(first)
        for step in steps:
            self.connection.requests.act(step)
        connection = self.connection
        self._proxy.send(Answered(time.time(), connection.number, self.effect.number, "refused"))
        self._proxy.points.undone(self.effect)
        self.did.append(f"refused with {error}")

    def note(self, what: str) -> None:
        """Say what was done, where no other method does."""
        self.did.append(what)

    @property
    def waits(self) -> bool:
        """Whether nothing of it has been sent yet, and may still be."""
        return not self._sent and not self._gone

    # -- what the wire tells it ----------------------------------------------------------------------------------

    def was_delivered(self) -> None:
        """Its last byte has been sent on; what is behind it waits."""
        self._delivered = True
        self.connection.requests.held = True
        self._proxy.changed()

    def keeps(self, answer: Answer) -> bool:
        """Whether the client has to wait for this reply."""
        if not self._keep or answer.number != self.effect.number:
            return False
        self._answer = answer
        return True

    async def finish(self) -> None:
        """The fault is done with it: what it did not stop goes on."""
        try:
            if self._frozen:
                await self.thaw()
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        connection = self.connection
        if self._proxy.closing and not connection.is_cut:
            connection.break_off()  # what is held when everything ends never arrives
        if not connection.is_cut and self.waits:
            try:
                await connection.reopen()
                self._send()
            except (OSError, NotPossible):
                connection.break_off()
        connection.frame = None
        if connection.is_cut:
            return
        if self._answer is not None:
            connection.client.write(self._answer.data)
        connection.replies.held = False
        connection.go_on()
        connection.replies.pump()
        connection.replies.throttle()

    def _require_there(self) -> None:
        """Raise `NotPossible` if the connection has been cut or its server has gone."""
        connection = self.connection
        if connection.is_cut:
            raise NotPossible("its worker was killed, or its connection broken, by another fault meanwhile")
        if connection.server.gone or connection.replies.finished:
            raise NotPossible("its server closed the connection meanwhile")

    def _send(self) -> None:
        if self._sent:
            return
        self._require_there()
        self._sent = True
        connection = self.connection
        connection.let_through(self.effect, self.points)
        connection.requests.held = False
        connection.requests.pump()  # up to `was_delivered`

    async def _watch(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Wait for what others do, as long as this connection is there."""
        connection = self.connection
        came = await self._proxy.until(lambda: condition() or connection.is_cut, seconds)
        self._require_there() if connection.is_cut else None
        return came

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        connection = self.connection

        def over() -> bool:
            ended = connection.server.gone or (connection.replies.finished and not self._answer)
            return condition() or ended or connection.is_cut

        if not await self._proxy.until(over, PATIENCE_S):
            raise NotPossible(f"{what} did not come in {PATIENCE_S:g} s")
        if not condition():
            raise NotPossible(f"the connection ended before {what} came")
