"""Links that take a detour (`chaos.services.detours`): what goes that way is counted; a toxic stands there for a time.

The effect at whose point a toxic begins waits until the toxic is in place, and goes on into it. The fault is at work
until the links are whole again. Whether it has done anything is told by what the wire sends into the detour and hears
out of it: where nothing went through a toxic, it has not fired.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from chaos.errors import ChaosError
from chaos.outages import OUTAGES, Outage, befalls
from chaos.toxics import Down, Latency, SlowClose
from chaos.wire.frame import NotPossible
from chaos.wire.messages import Failed, Fired, Stands

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.toxics import Bad
    from chaos.wire.frame import Frame
    from chaos.wire.link import Link
    from chaos.wire.messages import ArmedFault
    from chaos.wire.proxy import Proxy


class Traffic(NamedTuple):
    """What has gone over links: bytes each way; connections that ended or were not to be had; those that we left."""

    sent: int
    heard: int
    ended: int
    left: int

    @classmethod
    def of(cls, links: Sequence[Link]) -> Traffic:
        """All of it, up to now."""
        return cls(*(sum(counts) for counts in zip(*(link.traffic for link in links), strict=True)))

    def since(self, before: Traffic) -> Traffic:
        """What of it came later."""
        return Traffic(*(after - then for after, then in zip(self, before, strict=True)))

    def met(self, harm: Bad | Outage, stood: float) -> bool:
        """Whether it has had something to do, if this is what went in the seconds that it stood."""
        if isinstance(harm, Outage):
            return harm.kind != "freeze" or self.sent > 0 or self.ended > 0
        toxic = harm.toxic
        if isinstance(toxic, Down):
            return self.ended > 0
        if isinstance(toxic, SlowClose):
            return self.ended + self.left > 0
        if toxic.stream == "replies":
            swallows = toxic.loses or (isinstance(toxic, Latency) and toxic.latency_ms >= 1000 * stood)
            return self.heard > 0 or self.ended > 0 or (swallows and self.sent > 0)
        return self.sent > 0

    def __str__(self) -> str:
        return f"{self.sent} bytes sent, {self.heard} bytes heard, {self.ended} connections ended or refused"


class Standing:
    """A toxic on links, or a server's outage, from the point of its fault until all is whole again."""

    def __init__(self, proxy: Proxy, frame: Frame, armed: int, number: int, fault: ArmedFault) -> None:
        self._proxy, self._frame = proxy, frame
        self._armed, self._number, self.fault = armed, number, fault
        links = [link for link in proxy.links if link.listens in fault.links]
        alone = fault.kind not in OUTAGES and len({_role(link.worker) for link in links}) == 1
        own = [link for link in links if link.worker == frame.connection.member.label]
        # Of several replicas, the one that came to the point; what is everybody's is lost for all.
        self.links = own if alone and own else links
        self._goes_on = self._stands = False

    def meets(self, other: Standing) -> bool:
        """Whether healing one would heal the other."""
        alike = (self.fault.kind in OUTAGES) == (other.fault.kind in OUTAGES)
        return alike and bool({*self.links} & {*other.links})

    async def carry_out(self) -> None:
        """Spoil, let the effect go on, stand, heal; say how that ended."""
        there = [other for other in self._proxy.standing if self.meets(other)]
        if there:
            await self._go_on()
            reason = f"{there[0].fault.text} stood there already"
            self._proxy.send(Failed(time.time(), self._armed, self._number, self._worker, reason, unfit=True))
            return
        self._proxy.standing.append(self)
        try:
            await self._carry_out()
        finally:
            self._count(-1)
            self._proxy.standing.remove(self)

    async def _carry_out(self) -> None:
        harm, reasons, before = befalls(self.fault.kind, self.fault.value), list[str](), Traffic.of(self.links)
        began = time.monotonic()
        try:
            await self._order("spoil")
            spoilt, began = Traffic.of(self.links), time.monotonic()
            # Whom it cuts off hears of that before we are told that it is done.
            before = spoilt._replace(ended=before.ended) if _cuts(harm) else spoilt
            self._count(1)
            await self._go_on()
            await self._stand(harm)
        except asyncio.CancelledError:
            reasons.append("it was still at work when the drill ended")
        except ChaosError as error:
            reasons.append(str(error))
        went, stood = Traffic.of(self.links).since(before), time.monotonic() - began
        reasons += await self._heal()  # also where it may have been spoilt in part, or without having been told of it
        self._count(-1)
        await self._go_on()
        if not reasons and not went.met(harm, stood):
            reasons.append(
                f"nothing went through it: in the {stood:.3f} s that it stood there were {went}. Choose a point behind "
                "which the worker uses that link, or let it stand for longer"
            )
        if reasons:
            self._proxy.send(Failed(time.time(), self._armed, self._number, self._worker, "; ".join(reasons[:2])))
        else:
            what = f"had {self.fault.text.partition('@')[0]} for {stood:.3f} s: {went}"
            self._proxy.send(Fired(time.time(), self._armed, self._number, self._worker, what))

    async def _heal(self) -> list[str]:
        """Have all be whole again, also where nobody wants to wait for it any more; what went wrong."""
        healing, reasons = asyncio.ensure_future(self._order("heal")), list[str]()
        while not healing.done():
            try:
                await asyncio.shield(healing)
            except asyncio.CancelledError:
                reasons.append("it was still at work when the drill ended")
            except ChaosError as error:
                reasons.append(f"it was not healed: {error}")
        return reasons

    def _count(self, more: int) -> None:
        if self._stands == (more > 0):
            return
        self._stands = more > 0
        for link in self.links:
            link.bad += more

    @property
    def _worker(self) -> str:
        return self._frame.connection.member.label

    async def _stand(self, harm: Bad | Outage) -> None:
        if isinstance(harm, Outage) or harm.seconds:
            await asyncio.sleep(harm.seconds)
            return
        self._proxy.send(Stands(time.time(), self._armed, self._number))
        await self._proxy.mending.wait()

    async def _order(self, what: str) -> None:
        listens = tuple(link.listens for link in self.links)
        carried = await self._proxy.order(what, self._frame, links=listens, fault=self._number)
        if carried.error:
            raise NotPossible(carried.error)

    async def _go_on(self) -> None:
        if self._goes_on:
            return
        self._goes_on = True
        try:
            await self._frame.finish()
        except ChaosError:  # nobody was there any more to be sent it
            self._frame.connection.break_off()
        except asyncio.CancelledError:
            self._frame.connection.break_off()
            raise


def _cuts(harm: Bad | Outage) -> bool:
    """Whether it ends the connections that there are."""
    return not isinstance(harm, Outage) and isinstance(harm.toxic, Down)


def _role(worker: str) -> str:
    return worker.rpartition(".")[0]
