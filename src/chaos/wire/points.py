"""Which effect is which: names for arrivals, and the faults that wait for them.

An arrival is named ``role~incarnation/site#n``, counted per role over its replicas, and, for each workload key that its
contents hold, also ``role~incarnation/site[alias]#n``. Counting happens at the request, when nothing of it has been let
through; a reply may come in another order.
"""

from __future__ import annotations

import uuid
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.wire.messages import ArmedFault
    from chaos.wire.steps import Effect


class Points:
    """The counters and what is armed, from one `arm` to the next."""

    def __init__(self) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._counts: Counter[tuple[str, int, str, str]] = Counter()
        self._keys: dict[str, tuple[bytes, ...]] = {}

    def arm(self, faults: Iterable[ArmedFault]) -> None:
        """Count from the beginning, know no key, and wait for these faults."""
        self._armed = dict(enumerate(faults))
        self._counts.clear()
        self._keys.clear()

    def disarm(self) -> None:
        """Wait for no fault any more."""
        self._armed.clear()

    def name(self, key: str, alias: str) -> None:
        """Call what holds `key` by `alias`; a UUID is looked for in both spellings and as its sixteen bytes."""
        self._keys[alias] = tuple(dict.fromkeys(_spellings(key)))

    def arrived(self, role: str, incarnation: int, effect: Effect) -> tuple[tuple[str, ...], list[int]]:
        """The names of this arrival, the one by count first, and the numbers of the faults that wait for it."""
        names, due = list[str](), list[int]()
        for alias in ("", *self._found(effect.contents)):
            arrival = (role, incarnation, effect.site, alias)
            self._counts[arrival] += 1
            nth = self._counts[arrival]
            names.append(f"{role}~{incarnation}/{effect.site}{f'[{alias}]' if alias else ''}#{nth}")
            for number, fault in self._armed.items():
                point = (fault.role, fault.incarnation, fault.site, fault.key)
                if point == arrival and fault.nth == nth:
                    due.append(number)
        for number in due:
            del self._armed[number]
        return tuple(names), due

    def _found(self, contents: tuple[bytes, ...]) -> list[str]:
        return [
            alias
            for alias, spellings in self._keys.items()
            if any(spelling in piece for piece in contents for spelling in spellings)
        ]


def _spellings(key: str) -> Iterator[bytes]:
    yield key.encode()
    try:
        value = uuid.UUID(key)
    except ValueError:
        return
    yield from (value.bytes, str(value).encode(), value.hex.encode())
