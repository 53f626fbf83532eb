"""What schedules do to the links of a running system, and to its servers; see `chaos.toxics` and `chaos.outages`."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING

from chaos.errands import Errands
from chaos.outages import befalls
from chaos.toxics import Bad
from chaos.waiting import Deadline

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos.armed import Armed
    from chaos.lane import Lane
    from chaos.schedule import Fault
    from chaos.wire.messages import Order

_END_S, _BACK_S, _LEFT_S = 10.0, 30.0, 60.0


class Network:
    """Carries out what the wire orders about links and servers, which may take seconds, for which no kill waits.

    `current` says what is armed now.
    """

    def __init__(self, lane: Lane, current: Callable[[], Armed | None]) -> None:
        self._lane, self._links, self._current = lane, lane.links, current
        # Two threads: a link is only whole when its server answers, which may have to be brought back first.
        self._of_links, self._of_servers = Errands("onecharge-links"), Errands("onecharge-servers")
        self._away: set[str] = set()  # servers that are not back from a fault

    def close(self) -> None:
        """Return when all was done."""
        self._of_links.close()
        self._of_servers.close()

    def links_of(self, fault: Fault) -> tuple[int, ...]:
        """The ports of what a fault calls a link, of all replicas; none if it is no fault of a link."""
        return tuple(link.listens for link in self._links.named(fault.link)) if fault.link else ()

    def ordered(self, order: Order, armed: Armed | None) -> None:
        """Have an order about links carried out, soon."""
        if armed is None:
            self._links.wire.carried(order.order, "its drill has ended")
            return
        errands = self._of_servers if armed.faults[order.fault].is_outage else self._of_links
        errands.add(functools.partial(self._carry_out, order, armed))

    def restore(self) -> None:
        """Have nothing be bad or away that a drill has left so.

        Raises:
            ProcessDied: a server ended by itself.
            NotInTime: a server, or a link, does not answer.
        """
        deadline = Deadline(_LEFT_S)
        for errands in (self._of_servers, self._of_links):
            if not errands.finish(deadline):
                raise deadline.missed("what was bad or away to be whole again", sorted(self._away))
        for name in sorted(self._away):
            self._bring_back(name)
        self._links.heal_all()

    def _carry_out(self, order: Order, armed: Armed) -> None:
        error, fault = "", armed.faults[order.fault]
        try:
            if order.what == "heal":
                began = time.monotonic()
                names = self._heal(fault, order.links, armed)
                with self._lane.supervisor.changing():
                    armed.healed(fault, names, time.monotonic() - began)
            elif self._current() is not armed:
                error = "its drill has ended"
            else:
                names = self._spoil(fault, order.links, armed)
                with self._lane.supervisor.changing():
                    armed.spoiled(fault, names)
        except Exception as failure:  # noqa: BLE001 - the wire has to hear of it, and says it
            error = str(failure)
            if order.what == "heal":  # nothing more will come of this drill
                with self._lane.supervisor.changing():
                    armed.failure = armed.failure or failure
        self._links.wire.carried(order.order, error)

    def _spoil(self, fault: Fault, ports: tuple[int, ...], armed: Armed) -> tuple[str, ...]:
        harm = befalls(fault.action, fault.value)
        if isinstance(harm, Bad):
            return self._links.spoil(ports, harm.toxic)
        server = self._lane.server(fault.link)
        self._away.add(fault.link)
        armed.away += 1  # before it is: whoever meets an error looks at this
        armed.outages += 1
        if harm.kind == "freeze":
            server.freeze()
        elif harm.kind == "kill":
            server.kill()
        elif harm.kind == "full":
            server.fill()
        else:
            server.end(Deadline(_END_S))
        return (fault.link,)

    def _heal(self, fault: Fault, ports: tuple[int, ...], armed: Armed) -> tuple[str, ...]:
        if isinstance(befalls(fault.action, fault.value), Bad):
            self._lane.supervisor.wait_for(lambda: not armed.away, Deadline(_BACK_S))
            return self._links.heal(ports)
        self._bring_back(fault.link)
        armed.away -= 1
        return (fault.link,)

    def _bring_back(self, name: str) -> None:
        server = self._lane.server(name)
        server.empty()
        if server.ended:
            self._lane.forget_connections()
            server.start_again(Deadline(_BACK_S))
        else:
            server.thaw()
            server.require_reachable(Deadline(_BACK_S))
        self._away.discard(name)
