"""Invariants find every violation in a ledger, and only those."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.errors import ChaosError
from chaos.invariants import Ledger, no_effect_without_cause, nothing_lost, one_effect_per_key, order_per_key

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A ledger that nobody has written to."""
    return Ledger(tmp_path / "ledger.jsonl", key="order")


def write(ledger: Ledger, *records: object) -> None:
    """Append records."""
    with ledger.path.open("a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


def test_twice_is_found(ledger: Ledger) -> None:
    """Two effects for a key are a violation that names both records; a repeated request without effect is none."""
    write(ledger, {"order": "a"}, {"order": "b"}, {"order": "a", "effect": False}, {"order": "b", "effect": True})

    [violation] = one_effect_per_key(ledger).check(["a", "b", "c"])

    assert (violation.key, [record.number for record in violation.records]) == ("b", [2, 4])
    assert str(violation) == "one effect per key: b has 2 effects (records #2, #4)"


def test_loss_is_found(ledger: Ledger) -> None:
    """A key without an effect is lost, whether it was asked for in vain or never; keys not asked about do not count."""
    write(ledger, {"order": "a"}, {"order": "b", "effect": False}, {"order": "other"})

    found = nothing_lost(ledger).check(["a", "b", "c"])

    assert [(violation.key, len(violation.records)) for violation in found] == [("b", 1), ("c", 0)]


def test_missing_file(ledger: Ledger) -> None:
    """A ledger that does not exist yet has no records: nothing is doubled, everything is lost."""
    assert one_effect_per_key(ledger).check(["a"]) == []
    assert [violation.key for violation in nothing_lost(ledger).check(["a"])] == ["a"]


def test_growing_file(ledger: Ledger) -> None:
    """A ledger is read as it grows, and a line only when it is whole."""
    write(ledger, {"order": "a"})
    assert len(ledger.of("a")) == 1
    with ledger.path.open("a") as file:
        file.write('{"order": "a", "no')
        file.flush()
        assert len(ledger.of("a")) == 1
        file.write('te": "ü"}\n')

    assert [record.number for record in ledger.of("a")] == [1, 2]
    assert str(ledger.of("a")[1]) == '#2 {"order": "a", "note": "ü"}'


def test_keys_that_are_numbers(ledger: Ledger) -> None:
    """A key that is a number in the ledger is found by its text."""
    write(ledger, {"order": 7}, {"order": 7})

    assert [violation.key for violation in one_effect_per_key(ledger).check(["7"])] == ["7"]


def test_when_to_judge(ledger: Ledger) -> None:
    """A doubled effect may be judged at any time, a missing one only when nothing is left to do."""
    assert one_effect_per_key(ledger).final
    assert not nothing_lost(ledger).final


@settings(deadline=None)  # the machine may be busy
@given(records=st.lists(st.tuples(st.sampled_from("abc"), st.booleans())), extra=st.sampled_from("abc"))
def test_against_counting(
    tmp_path_factory: pytest.TempPathFactory, records: list[tuple[str, bool]], extra: str
) -> None:
    """For any ledger the two invariants say exactly which keys have more, and which fewer, than one effect."""
    ledger = Ledger(tmp_path_factory.mktemp("ledger") / "ledger.jsonl", key="order")
    write(ledger, *({"order": key, "effect": effect} for key, effect in records))
    effects = {key: sum(effect for named, effect in records if named == key) for key in ("a", "b", "c")}

    doubled = {violation.key for violation in one_effect_per_key(ledger).check("abc")}
    lost = {violation.key for violation in nothing_lost(ledger).check("abc")}

    assert doubled == {key for key, count in effects.items() if count > 1}
    assert lost == {key for key, count in effects.items() if count == 0}
    write(ledger, {"order": extra}, {"order": extra})
    assert extra in {violation.key for violation in one_effect_per_key(ledger).check("abc")}


def test_order_is_found(ledger: Ledger) -> None:
    """Effects of one key must rise in their sequence; gaps, repeats without effect and other keys do not matter."""
    write(ledger, {"order": "a", "seq": 1}, {"order": "b", "seq": 1}, {"order": "a", "seq": 3})
    write(ledger, {"order": "a", "seq": 2, "effect": False})
    assert order_per_key(ledger, sequence="seq").check(["a", "b", "c"]) == []
    write(ledger, {"order": "a", "seq": 2}, {"order": "b", "seq": 1})

    found = order_per_key(ledger, sequence="seq").check(["a", "b", "c"])

    assert [(one.key, one.detail, [record.number for record in one.records]) for one in found] == [
        ("a", "has seq 2 behind 3", [3, 5]),
        ("b", "has seq 1 behind 1", [2, 6]),
    ]


def test_order_without_its_field(ledger: Ledger) -> None:
    """A sequence that the records do not have is an error that names what they have."""
    write(ledger, {"order": "a"}, {"order": "a"})
    with pytest.raises(ChaosError, match="no field 'seq'; it has order"):
        order_per_key(ledger, sequence="seq").check(["a"])


def test_effect_without_cause_is_found(ledger: Ledger, tmp_path: Path) -> None:
    """An effect about a key that has none in the ledger of causes is a violation; a cause without effect is none."""
    cause = Ledger(tmp_path / "cause.jsonl", key="order")
    write(cause, {"order": "a"}, {"order": "b", "effect": False}, {"order": "c"})
    write(ledger, {"order": "a"}, {"order": "b"})

    [violation] = no_effect_without_cause(ledger, cause=cause).check(["a", "b", "c", "d"])

    assert str(violation) == "no effect without a cause: b has none in cause.jsonl (records #2)"
