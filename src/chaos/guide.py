"""What an exploration has reached, what it has not, and which of some schedules would add most.

Counted are *pairs*: what was done at one kind of place and then what was done at another, such as ``relay/kafka.produce
crash-after`` and ``payment/postgres.commit crash-before``, apart for one key and for two. The place of a kind of effect
is what a bug is about, not which of three orders it was. A pair is reached when both faults have fired in one drill.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from chaos.drill import Verdict
    from chaos.schedule import Fault, Schedule


class Kind(NamedTuple):
    """A fault without its key and its count."""

    worker: str
    recovering: bool
    site: str
    action: str

    @classmethod
    def of(cls, fault: Fault) -> Kind:
        """The kind of a fault."""
        return cls(fault.worker, fault.incarnation > 0, fault.site, f"{fault.action}={fault.value}".rstrip("="))


class Pair(NamedTuple):
    """Two kinds that follow each other, about the same key or not."""

    first: Kind
    then: Kind
    one_key: bool


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
        return f"{len(self.kinds & self.reached)} of {len(self.kinds)} kinds of faults, {pairs} pairs of them"

    def _worth(self, schedule: Schedule) -> float:
        """Of its features, the part that is new; one that was tried before counts less each time."""
        new = [0.0 if one in self.reached else 1 / (1 + self._tried[one]) for one in features(schedule.faults)]
        return sum(new) / len(new)


def features(faults: Iterable[Fault]) -> Iterator[Kind | Pair]:
    """The kinds of faults, and the pairs of kinds."""
    some = list(faults)
    yield from map(Kind.of, some)
    for first, then in itertools.combinations(some, 2):
        yield Pair(Kind.of(first), Kind.of(then), first.key == then.key)
