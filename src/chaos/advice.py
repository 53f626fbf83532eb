"""What the order of frames gives away, without breaking anything: advice from one healthy run.

A crash between two effects about one key leaves the first without the second. Which order is safe depends on what the
first one says. Each rule looks at the effects that one worker has about one key:

- *offset before effect*: a commit of offsets that covers the key's record is sent before another effect about it. A
  crash in between loses the record.
- *commit ahead of the work*: it is sent while an effect about the key has no reply yet, as commits in the background
  are. Nobody knows then whether the effect has taken place, and the record will not come again.
- *effect outside the transaction*: an effect is sent when a transaction about the key has been committed already. If
  that transaction is what recognises the record when it comes again (an inbox, a mark), a crash in between loses the
  effect.

Advice is no verdict: an order may be safe for a reason that is not on the wire. A sweep decides.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chaos.history import Asked, Replied
from chaos.schedule import split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos.history import Event

_COMMITS = ("kafka.offset_commit", "kafka.txn_offset_commit")
_TRANSACTIONS = ("postgres.commit", "postgres.write")


@dataclass(frozen=True)
class Advice:
    """A rule, and the two points whose order it is about: `first` goes before `second`."""

    rule: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.first} before {self.second}"


@dataclass(frozen=True)
class _Effect:
    point: str
    site: str
    asked: int
    replied: int


def advice(history: Sequence[Event]) -> list[Advice]:
    """What a fault-free drill's history gives away, in its order."""
    found = [one for effects in _by_key(history).values() for one in _look(effects)]
    return list(dict.fromkeys(found))


def _look(effects: Sequence[_Effect]) -> Iterator[Advice]:
    """The effects of one worker about one key, in order."""
    for at, first in enumerate(effects):
        if first.site in _COMMITS:
            before = [one for one in effects[:at] if one.site not in _COMMITS and one.replied > first.asked]
            yield from (Advice("commit ahead of the work", first.point, one.point) for one in before)
        for second in effects[at + 1 :]:
            if second.site in _COMMITS:
                continue
            if first.site in _COMMITS:
                yield Advice("offset before effect", first.point, second.point)
            elif first.site in _TRANSACTIONS and first.replied < second.asked:
                yield Advice("effect outside the transaction", first.point, second.point)


def _by_key(history: Sequence[Event]) -> dict[tuple[str, str], list[_Effect]]:
    """By worker and alias, the effects that took place."""
    replies = {event.number: (at, event.outcome) for at, event in enumerate(history) if isinstance(event, Replied)}
    found: defaultdict[tuple[str, str], list[_Effect]] = defaultdict(list)
    for at, event in enumerate(history):
        if isinstance(event, Asked):
            replied, outcome = replies.get(event.number, (len(history), ""))
            for point in event.points[1:] if outcome not in {"refused", "lost"} else ():
                name = split(point)
                found[event.worker, name.alias].append(_Effect(point, name.site, at, replied))
    return found
