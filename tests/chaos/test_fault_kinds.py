"""Kinds of faults are found by name, those of other packages too."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chaos import faults
from chaos.errors import ChaosError, UnknownName
from chaos.schedule import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OURS = [
    "crash-after",
    "crash-before",
    "crash-late",
    "delay",
    "freeze",
    "hold",
    "lose-reply",
    "lose-request",
    "refuse",
    "repeat",
]
TRUNCATE = """
from chaos.faults import FaultKind

class Truncate(FaultKind):
    name = "truncate"
    values = ("head", "tail")

class Other:
    pass
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package that adds two kinds, one of which is none, and claims a name of ours."""
    (tmp_path / "their_faults.py").write_text(TRUNCATE)
    info = tmp_path / "their_faults-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-faults\nVersion: 1.0\n")
    entries = ("truncate = their_faults:Truncate", "other = their_faults:Other", "delay = their_faults:Other")
    (info / "entry_points.txt").write_text("\n".join(["[onecharge.faults]", *entries, ""]))
    monkeypatch.syspath_prepend(str(tmp_path))
    for cached in (faults.registered, faults.kind):
        cached.cache_clear()
    yield
    for cached in (faults.registered, faults.kind):
        cached.cache_clear()


def test_ours() -> None:
    """Each of our kinds is registered by its own name and takes its default."""
    assert sorted(faults.registered()) == OURS
    assert [faults.kind(name).name for name in OURS] == OURS
    for name in OURS:
        faults.kind(name).check("")


@pytest.mark.usefixtures("installed")
def test_theirs() -> None:
    """A kind of another package is written in schedules like ours, and cannot take the place of one of ours."""
    assert Fault.parse("a/b:truncate=tail").value == "tail"
    with pytest.raises(ChaosError, match="truncate=middle: expected truncate=head, truncate=tail"):
        Fault.parse("a/b:truncate=middle")
    with pytest.raises(ChaosError, match="their_faults:Other, registered as the fault 'other', is no"):
        Fault.parse("a/b:other")
    assert faults.kind("delay").name == "delay"


def test_unknown() -> None:
    """A name that nobody registered is an error with the nearest one."""
    with pytest.raises(UnknownName, match="did you mean 'crash-late'"):
        faults.kind("crash-lat")
