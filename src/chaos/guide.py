"""What an exploration has reached, what it has not, and which of some schedules would add most.

Counted are *pairs*: what was done at one kind of place and then what was done at another, such as ``relay/kafka.produce
crash-after`` and ``payment/postgres.commit crash-before``, apart for one key, for an earlier and for a later one. The
place of a kind of effect is what a bug is about, not which of three orders it was. A pair is reached when both faults
have fired in one drill. Pairs in two workers are worth most: what one worker does alone is what sweeps are for. So are
faults after which somebody has forgotten or does not know something, before those that only change the order of things.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.drill import Verdict
    from chaos.schedule import Fault, Schedule

Keys: TypeAlias = Literal["same", "later", "earlier"]


class Kind(NamedTuple):
    """A fault without its key and its count."""

    worker: str
    recovering: bool
    site: str
    action: str

    @property
    def weight(self) -> float:
        """How much it is worth to try it, alone."""
        return 0.2

    @property
    def loses(self) -> bool:
        """Whether somebody has forgotten or does not know something after it."""
        return self.action.startswith(("crash", "lose", "refuse"))

    @classmethod
    def of(cls, fault: Fault) -> Kind:
        """The kind of a fault."""
        return cls(fault.worker, fault.incarnation > 0, fault.site, fault.act)


class Pair(NamedTuple):
    """Two kinds that follow each other; `keys` is whether the second is about the same key."""

    first: Kind
    then: Kind
    keys: Keys

    @property
    def weight(self) -> float:
        """How much it is worth to try it."""
        two = 1.0 if self.first.worker != self.then.worker else 0.3
        return two * (0.5 + 0.5 * self.first.loses) * (0.5 + 0.5 * self.then.loses)


class Guide:
    """See the module's docstring."""

    def __init__(self, choices: Iterable[Fault]) -> None:
        self.kinds = {Kind.of(fault) for fault in choices}
        self.reached: set[Kind | Pair] = set()
        self._tried: Counter[Kind | Pair] = Counter()

    def best(self, some: Iterable[Schedule]) -> Schedule:
        """The one that tries most that was tried least."""
        return max(some, key=self._worth)

    def tries(self, schedule: Schedule) -> None:
        """It is about to be carried out."""
        self._tried.update(features(schedule.faults))

    def learn(self, verdict: Verdict) -> None:
        """It was."""
        fired = {fired.fault for fired in verdict.fired}
        self.reached.update(features([fault for fault in verdict.schedule.faults if str(fault) in fired]))

    @property
    def coverage(self) -> str:
        """In words."""
        pairs = sum(isinstance(one, Pair) for one in self.reached)
        return f"{len(self.kinds & self.reached)} of {len(self.kinds)} kinds of faults, pairs: {pairs}"

    def _worth(self, schedule: Schedule) -> float:
        """The mean worth of its features; one that was tried before is worth less each time, and never nothing.

        The same pair may do no harm to one order and harm to another, and may come out differently the next time.
        """
        worths = [one.weight / (1 + self._tried[one]) ** 2 for one in features(schedule.faults)]
        return sum(worths) / len(worths)


def features(faults: Iterable[Fault]) -> Iterator[Kind | Pair]:
    """The kinds of faults, and the pairs of kinds."""
    some = list(faults)
    yield from map(Kind.of, some)
    for first, then in itertools.combinations(some, 2):
        keys: Keys = "earlier" if (len(then.key), then.key) < (len(first.key), first.key) else "later"
        yield Pair(Kind.of(first), Kind.of(then), "same" if first.key == then.key else keys)
