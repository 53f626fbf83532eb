"""Which effect is which: names for arrivals, and the faults that wait for them.

An arrival is named ``role~g/site#n``, counted per role over its replicas, and, for each workload key that it is about,
also ``role~g/site[alias]#n``. The generation g counts how many of the role's processes were killed since the counting
began: with several replicas nobody knows which of them will be given a key, so their effects share one row of names.
Counting happens at the request, when nothing of it has been let through; a reply may come in another order.

What a frame is about:

- Keys that it holds, as text or as the bytes of a UUID.
- *Kin*: an id that the system made and that first stands in a frame, or in a record that a client is given, beside
  exactly one key or its kin, as in the transaction that accepts an order under the client's key. From there on it
  stands for the key, so an effect has its name also when it is faster than the reply that tells the client of the id.
  What stands beside several keys in frames of the same kind (a tenant, a product) is no kin of any.
- A commit of offsets holds no key. It is about the records between the last one that the group has asked for, if that
  is not lost, and this one; their keys were seen when a client was given them. One with nothing new is about nothing.
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

_UUID = rb"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = re.compile(rb"(?<![\w-])%b(?![\w-])" % _UUID)
_SHAPE = re.compile(rb"%b|[0-9a-f]{32}" % _UUID)
_SHAPED = re.compile(rb"(?=(%b|[0-9a-f]{32}))" % _UUID)  # also where one begins within another
_ID_BYTES = 16
_FEW = 32  # texts that are looked for one by one
_OFFSET = "offset:"
_LONGEST = 1 << 16  # bytes of a frame in which ids are looked for


@dataclass(frozen=True)
class _Kin:
    """An id that stands for a key, and the role and site of the frame that said so."""

    alias: str
    learned: tuple[str, str]


class _Texts:
    """Texts to be found in others, and what each stands for. Hundreds of ids are found as fast as one."""

    def __init__(self) -> None:
        self._ids: dict[bytes, str] = {}
        self._plain: dict[bytes, str] = {}
        self._binary: dict[bytes, str] = {}

    def _table(self, text: bytes) -> dict[bytes, str]:
        return self._ids if _SHAPE.fullmatch(text) else self._plain if text.isascii() else self._binary

    def __setitem__(self, text: bytes, alias: str) -> None:
        self._table(text)[text] = alias

    def discard(self, text: bytes) -> None:
        """Forget it."""
        self._table(text).pop(text, None)

    def clear(self) -> None:
        """Forget all."""
        for table in (self._ids, self._plain, self._binary):
            table.clear()

    def within(self, text: bytes) -> set[str]:
        """What the texts stand for that occur in this one."""
        found = {alias for other, alias in self._plain.items() if other in text}
        if self._binary and not text.isascii():
            found |= {alias for other, alias in self._binary.items() if other in text}
        if len(self._ids) > _FEW:
            return found | {self._ids[one] for one in _SHAPED.findall(text) if one in self._ids}
        return found | {alias for other, alias in self._ids.items() if other in text}


class Points:
    """The counters and what is armed, from one `arm` to the next."""

    def __init__(self) -> None:
        self._armed: dict[int, ArmedFault] = {}
        self._counts: Counter[tuple[str, int, str, str]] = Counter()
        self._generations: dict[str, int] = {}
        self._aliases: dict[str, int] = {}  # in the order in which they were told
        self._keys = _Texts()
        self._kin: dict[uuid.UUID, _Kin] = {}
        self._kin_texts = _Texts()
        self._common: set[uuid.UUID] = set()  # ids that are nobody's kin
        self._given: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)  # by partition: offset and alias
        self._committed: dict[tuple[str, str], int] = {}  # by group and partition; outlives the arming
        self._asked: dict[tuple[str, str], int] = {}  # what is being committed
        self._pending: defaultdict[bytes, dict[tuple[str, str], int]] = defaultdict(dict)  # by transaction; likewise

    def arm(self, faults: Iterable[ArmedFault]) -> None:
        """Count from the beginning, know no key, and wait for these faults."""
        self._armed = dict(enumerate(faults))
        for table in (
            self._counts,
            self._generations,
            self._aliases,
            self._keys,
            self._kin,
            self._kin_texts,
            self._given,
        ):
            table.clear()

    def disarm(self) -> None:
        """Wait for no fault any more."""
        self._armed.clear()

    def enlist(self, role: str, generation: int) -> None:
        """A process of `role` is about to start; so many of them have been killed since the counting began."""
        self._asked.clear()  # what a dead one asked for and was not answered
        self._generations[role] = generation

    def name(self, key: str, alias: str) -> None:
        """Call what holds `key` by `alias`; a UUID is looked for in both spellings and as its sixteen bytes."""
        self._aliases.setdefault(alias, len(self._aliases))
        for spelling in _spellings(key):
            self._keys[spelling] = alias

    def wanted(self, piece: bytes) -> bool:
        """Whether a key occurs in `piece`."""
        return bool(self._keys.within(piece) or self._kin_texts.within(piece))

    def given(self, records: Iterable[tuple[str, int, bytes]]) -> None:
        """Clients are about to be given these records: partition, offset, contents."""
        for partition, offset, data in records:
            known = self._given[partition]
            aliases = self._found(("given", partition.partition("/")[0]), (data,))
            known += [(offset, alias) for alias in aliases if (offset, alias) not in known]

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

    def repeats(self, effect: Effect) -> bool:
        """Whether it commits offsets and none that is new."""
        covered = list(_offsets(effect.evidence))
        places = [((group, partition), offset) for group, partition, offset in covered]
        known = (max(self._committed.get(at, -1), self._asked.get(at, -1)) >= offset for at, offset in places)
        return bool(covered) and all(known)

    def sent(self, effect: Effect) -> None:
        """It is let through: who commits these offsets again, meanwhile, does nothing new."""
        for group, partition, offset in _offsets(effect.evidence):
            self._asked[group, partition] = max(self._asked.get((group, partition), 0), offset)

    def undone(self, effect: Effect) -> None:
        """The server has not carried it out, or nobody knows: who commits these offsets again does something new."""
        for group, partition, _ in _offsets(effect.evidence):
            self._asked.pop((group, partition), None)

    def done(self, effect: Effect) -> None:
        """The server has carried out an effect; offsets in a transaction are committed when that is."""
        offsets = {(group, partition): offset for group, partition, offset in _offsets(effect.evidence)}
        match effect.site:
            case "kafka.txn_offset_commit":
                _, transaction, *_ = effect.contents
                self._pending[transaction] |= offsets
            case "kafka.commit_transaction":
                self._committed |= self._pending.pop(effect.contents[0], {})
            case "kafka.abort_transaction":
                for place in self._pending.pop(effect.contents[0], {}):
                    self._asked.pop(place, None)
            case _:
                self._committed |= offsets

    def _about(self, role: str, effect: Effect) -> list[str]:
        covered = list(_offsets(effect.evidence))
        if not covered:
            return self._found((role, effect.site), effect.contents)
        found = []
        for group, partition, end in covered:
            place = group, partition
            begin = max(self._committed.get(place, 0), self._asked.get(place, 0))
            found += [alias for offset, alias in self._given.get(partition, ()) if begin <= offset < end]
        return list(dict.fromkeys(found))

    def _found(self, frame: tuple[str, str], contents: tuple[bytes, ...]) -> list[str]:
        """The aliases of what a frame of this kind holds; what it teaches is learnt."""
        text = b"\0\n\0".join(contents)  # nothing is found that reaches from one piece into the next
        named = self._keys.within(text)
        if (named or self._kin_texts.within(text)) and len(text) <= _LONGEST:
            self._learn(frame, contents, named)
        return sorted(named | self._kin_texts.within(text), key=self._aliases.__getitem__)

    def _learn(self, frame: tuple[str, str], contents: tuple[bytes, ...], named: set[str]) -> None:
        """Note what stands in this frame beside one key alone; forget what did so beside a key that is not here.

        What was learnt in frames of this kind is no word on whom this one is about: it may be common to all of them.
        """
        made = {found for piece in contents for found in _ids(piece)} - self._common
        kin = {one: self._kin[one] for one in made & self._kin.keys()}
        sure = named | {one.alias for one in kin.values() if one.learned != frame}
        for one in [one for one, known in kin.items() if sure and known.alias not in sure]:
            self._common.add(one)
            del self._kin[one]
            for spelling in _spellings(str(one)):
                self._kin_texts.discard(spelling)
        if len(sure) != 1:
            return
        [alias] = sure
        for one in made - self._kin.keys() - self._common:
            self._kin[one] = _Kin(alias, frame)
            for spelling in _spellings(str(one)):
                self._kin_texts[spelling] = alias


def alikes(points: tuple[str, ...]) -> tuple[str, ...]:
    """What effects that do the same have in common: site and key, or the site alone where there is no key."""
    return tuple(point.partition("/")[2].rpartition("#")[0] for point in points[1:] or points)


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
