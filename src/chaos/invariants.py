"""What must be true of a ledger, whatever was broken: pure functions that return all violations.

A ledger is the append-only log of somebody who is never broken, one JSON object a line. Each record names a key in
a field that the `Ledger` is told. A record is an effect unless it says ``"effect": false``, as a payment gateway does
that recognised a repeated request and did not charge again.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaos.errors import ChaosError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Record:
    """One line of a ledger; `number` counts from 1."""

    number: int
    key: str
    effect: bool
    text: str

    def __str__(self) -> str:
        return f"#{self.number} {self.text}"

    def field(self, name: str) -> Any:
        """The value of one of its fields.

        Raises:
            ChaosError: it has no such field.
        """
        content = json.loads(self.text)
        if name not in content:
            raise ChaosError(f"record {self} has no field {name!r}; it has {', '.join(content)}")
        return content[name]


class Ledger:
    """A ledger file, read as it grows."""

    def __init__(self, path: Path, *, key: str) -> None:
        self.path, self._field = path, key
        self._position = 0
        self._count = 0
        self._records: defaultdict[str, list[Record]] = defaultdict(list)

    def of(self, key: str) -> list[Record]:
        """All records that name `key`, in order."""
        self._read()
        return list(self._records.get(key, ()))

    def _read(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._position:
            msg = f"{self.path} had {self._position} bytes and has {size}: a ledger only grows. Who removed it?"
            raise ChaosError(msg)
        if not size:
            return
        with self.path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):  # being written at this moment
                    return
                self._add(line.decode().rstrip("\n"), self._count + 1)
                self._position += len(line)  # only now: a record that cannot be read must not be passed over
                self._count += 1

    def _add(self, text: str, number: int) -> None:
        try:
            content: dict[str, Any] = json.loads(text)
            key = str(content[self._field])
        except (ValueError, TypeError, KeyError) as error:
            msg = (
                f"{self.path}, line {number}: expected a JSON object with the field {self._field!r}, which the ledger "
                f"was told is its key, and found {text}"
            )
            raise ChaosError(msg) from error
        self._records[key].append(Record(number, key, content.get("effect", True) is not False, text))


@dataclass(frozen=True)
class Violation:
    """A key for which an invariant does not hold, with the records that show it."""

    invariant: str
    key: str
    detail: str
    records: tuple[Record, ...] = ()

    def __str__(self) -> str:
        shown = f" (records {', '.join(f'#{record.number}' for record in self.records)})" if self.records else ""
        return f"{self.invariant}: {self.key} {self.detail}{shown}"


@dataclass(frozen=True)
class Invariant:
    """A rule about keys. `check` returns every violation among the keys it is given.

    `final` says that what is violated once stays so; the others may only be judged when the system has settled.
    """

    name: str
    check: Callable[[Sequence[str]], list[Violation]] = field(repr=False)
    ledger: Ledger = field(repr=False)
    final: bool


def one_effect_per_key(ledger: Ledger) -> Invariant:
    """No key has more than one effect in the ledger, however often it was asked for."""

    def check(keys: Iterable[str]) -> list[Violation]:
        found = []
        for key in keys:
            effects = tuple(record for record in ledger.of(key) if record.effect)
            if len(effects) > 1:
                found.append(Violation("one effect per key", key, f"has {len(effects)} effects", effects))
        return found

    return Invariant("one effect per key", check, ledger, final=True)


def nothing_lost(ledger: Ledger) -> Invariant:
    """Every key that was accepted has an effect in the ledger."""

    def check(keys: Iterable[str]) -> list[Violation]:
        return [
            Violation("nothing lost", key, "was accepted and has no effect", tuple(ledger.of(key)))
            for key in keys
            if not any(record.effect for record in ledger.of(key))
        ]

    return Invariant("nothing lost", check, ledger, final=False)


def order_per_key(ledger: Ledger, *, sequence: str) -> Invariant:
    """The effects of a key come in the order of their field `sequence`, a number or text that rises; gaps may be."""

    def check(keys: Iterable[str]) -> list[Violation]:
        found = []
        for key in keys:
            effects = [record for record in ledger.of(key) if record.effect]
            for before, after in itertools.pairwise(effects):
                if not before.field(sequence) < after.field(sequence):
                    detail = f"has {sequence} {after.field(sequence)} behind {before.field(sequence)}"
                    found.append(Violation("order per key", key, detail, (before, after)))
        return found

    return Invariant("order per key", check, ledger, final=True)


def no_effect_without_cause(ledger: Ledger, *, cause: Ledger) -> Invariant:
    """A key that has an effect in the ledger has one in `cause` as well: nothing is mailed that was not charged."""

    def check(keys: Iterable[str]) -> list[Violation]:
        found = []
        for key in keys:
            effects = tuple(record for record in ledger.of(key) if record.effect)
            if effects and not any(record.effect for record in cause.of(key)):
                found.append(Violation("no effect without a cause", key, f"has none in {cause.path.name}", effects))
        return found

    return Invariant("no effect without a cause", check, ledger, final=False)
