"""Which effect is which: names for arrivals, and the faults that wait for them.

An arrival is named ``role~g/site#n``, counted per role over its replicas, and, for each workload key that it is about,
also ``role~g/site[alias]#n``. The generation g counts how many of the role's processes were killed since the counting
began: with several replicas nobody knows which of them will be given a key, so their effects share one row of names.
Counting happens at the request, when nothing of it has been let through; a reply may come in another order.

What a frame is about:

- Keys that it holds, as text or as the bytes of a UUID.
- *Kin*: an id that the system made and whose first frame holds exactly one key of the workload's, as the transaction
  does that accepts an order under the client's key. From that frame on it stands for the key, so an effect has its name
  also when it is faster than the reply that tells the client of the id. What stands beside several keys in frames of
  the same kind (a tenant, a product) is no kin of any.
- A commit of offsets holds no key. It is about the records between the group's last commit and this one, whose keys
  were seen when a client was given them. One that covers nothing new is about nothing.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.wire.messages import ArmedFault
    from chaos.wire.steps import Effect

_ID = re.compile(rb"(?<![\w-])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![\w-])")
_ID_BYTES = 16
_OFFSET = "offset:"
_LONGEST = 1 << 16  # bytes of a frame in which ids are looked for


@dataclass(frozen=True)
class _Kin:
    """An id that stands for a key, how it may be written, and the role and site of the frame that said so."""

    alias: str
    spellings: tuple[bytes, ...]
    learned: tuple[str, str]


class Points:
    """The counters and what is armed, from one `arm` to the next."""

    def __init__(self) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._counts: Counter[tuple[str, int, str, str]] = Counter()
        self._generations: dict[str, int] = {}
        self._keys: dict[bytes, str] = {}  # spelling and alias
        self._kin: dict[uuid.UUID, _Kin] = {}
        self._common: set[uuid.UUID] = set()  # ids that are nobody's kin
        self._given: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)  # by partition: offset and alias
        self._committed: dict[tuple[str, str], int] = {}  # by group and partition; outlives the arming

    def arm(self, faults: Iterable[ArmedFault]) -> None:
        """Count from the beginning, know no key, and wait for these faults."""
        self._armed = dict(enumerate(faults))
        for table in (self._counts, self._generations, self._keys, self._kin, self._given):
            table.clear()

    def disarm(self) -> None:
        """Wait for no fault any more."""
        self._armed.clear()

    def enlist(self, role: str, generation: int) -> None:
        """A process of `role` is about to start; so many of them have been killed since the counting began."""
        self._generations[role] = generation

    def name(self, key: str, alias: str) -> None:
        """Call what holds `key` by `alias`; a UUID is looked for in both spellings and as its sixteen bytes."""
        self._keys |= dict.fromkeys(_spellings(key), alias)

    def wanted(self, piece: bytes) -> bool:
        """Whether a key occurs in `piece`."""
        return bool(self._held((piece,)))

    def given(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Clients are about to be given these records: partition, offset, contents."""
        for partition, offset, data in records:
            known = self._given[partition]
            known += [(offset, alias) for alias in self._held((data,)) if (offset, alias) not in known]

    def arrived(self, role: str, effect: Effect) -> tuple[tuple[str, ...], list[int]]:
        """The names of this arrival, the one by count first, and the numbers of the faults that wait for it."""
        generation = self._generations.get(role, 0)
        names, due = list[str](), list[int]()
        for alias in ("", *self._about(role, effect)):
            arrival = (role, generation, effect.site, alias)
            self._counts[arrival] += 1
            nth = self._counts[arrival]
            names.append(f"{role}~{generation}/{effect.site}{f'[{alias}]' if alias else ''}#{nth}")
            for number, fault in self._armed.items():
                point = (fault.role, fault.incarnation, fault.site, fault.key)
                if point == arrival and fault.nth == nth:
                    due.append(number)
        for number in due:
            self._armed.pop(number, None)
        return tuple(names), due

    def done(self, evidence: Iterable[str]) -> None:
        """The server has carried out what left this evidence."""
        for group, partition, offset in _offsets(evidence):
            self._committed[group, partition] = offset

    def _about(self, role: str, effect: Effect) -> list[str]:
        covered = list(_offsets(effect.evidence))
        if covered:
            found = [
                alias
                for group, partition, end in covered
                for offset, alias in self._given.get(partition, ())
                if self._committed.get((group, partition), 0) <= offset < end
            ]
            return list(dict.fromkeys(found))
        self._learn((role, effect.site), effect.contents)
        return self._held(effect.contents)

    def _held(self, contents: tuple[bytes, ...]) -> list[str]:
        kin = [one.alias for one in self._kin.values() if _holds(contents, one.spellings)]
        return list(dict.fromkeys(self._named(contents) + kin))

    def _named(self, contents: tuple[bytes, ...]) -> list[str]:
        return [alias for spelling, alias in self._keys.items() if _holds(contents, (spelling,))]

    def _learn(self, frame: tuple[str, str], contents: tuple[bytes, ...]) -> None:
        """Note what stands in this frame beside one key alone; forget what did so beside another one."""
        beside = set(self._named(contents))
        if len(beside) != 1 or sum(map(len, contents)) > _LONGEST:
            return
        [alias] = beside
        made = {found for piece in contents for found in _ids(piece)} - self._common
        for one in [one for one in made & self._kin.keys() if self._kin[one].alias != alias]:
            if self._kin[one].learned == frame:
                self._common.add(one)
                del self._kin[one]
        if set(self._held(contents)) == beside:
            for one in made - self._kin.keys() - self._common:
                self._kin[one] = _Kin(alias, tuple(_spellings(str(one)))[1:], frame)


def alikes(points: tuple[str, ...]) -> tuple[str, ...]:
    """What effects that do the same have in common: site and key, or the site alone where there is no key."""
    return tuple(point.partition("/")[2].rpartition("#")[0] for point in points[1:] or points)


def _holds(contents: tuple[bytes, ...], spellings: tuple[bytes, ...]) -> bool:
    return any(spelling in piece for piece in contents for spelling in spellings)


def _ids(piece: bytes) -> Iterator[uuid.UUID]:
    """The ids that a system may have made: UUIDs as text, or as a parameter's sixteen bytes."""
    if len(piece) == _ID_BYTES and not piece.isascii() and uuid.UUID(bytes=piece).variant == uuid.RFC_4122:
        yield uuid.UUID(bytes=piece)
    yield from (uuid.UUID(text.decode()) for text in _ID.findall(piece))


def _offsets(evidence: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """What a commit of offsets commits: group, partition, the offset behind what is done."""
    for text in evidence:
        if text.startswith(_OFFSET):
            rest, _, offset = text.removeprefix(_OFFSET).rpartition(":")
            group, _, partition = rest.rpartition(":")
            yield group, partition, int(offset)


def _spellings(key: str) -> Iterator[bytes]:
    yield key.encode()
    try:
        value = uuid.UUID(key)
    except ValueError:
        return
    yield from (value.bytes, str(value).encode(), value.hex.encode())
