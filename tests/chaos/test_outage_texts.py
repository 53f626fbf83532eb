"""Outages as plain data: what may be written, what it means, and what is refused, with what to do."""

from __future__ import annotations

import pytest

from chaos import ChaosError, Fault, UnknownName
from chaos.outages import Outage, befalls
from chaos.toxics import Bad, Down

AT = "@payment~0/http.post#1"


@pytest.mark.parametrize(
    ("text", "outage"),
    [
        (f"kafka:kill{AT}", Outage("kill", 0)),
        (f"kafka:kill=2{AT}", Outage("kill", 2)),
        (f"postgres:freeze{AT}", Outage("freeze", 1)),
        (f"postgres:freeze=0.5{AT}", Outage("freeze", 0.5)),
        (f"kafka:restart{AT}", Outage("restart", 0)),
        (f"postgres:full{AT}", Outage("full", 1)),
    ],
)
def test_there_and_back(text: str, outage: Outage) -> None:
    """A text is read as what it says, and written as it was."""
    fault = Fault.parse(text)
    assert (fault.link, fault.is_outage, befalls(fault.action, fault.value)) == (text.partition(":")[0], True, outage)
    assert str(fault) == text


def test_a_toxic_is_none() -> None:
    """What makes links bad leaves their server alone."""
    fault = Fault.parse(f"kafka:down=1{AT}")
    assert not fault.is_outage
    assert befalls(fault.action, fault.value) == Bad(Down(), 1.0)


def test_a_worker_is_none() -> None:
    """A kind of crash that is called alike is none."""
    assert not Fault.parse("payment/http.post#1:freeze").is_outage


@pytest.mark.parametrize("value", ["0", "61", "-1", "1,2", "soon", "held"])
def test_a_value_without_meaning(value: str) -> None:
    """It is refused, with what is expected."""
    with pytest.raises(ChaosError, match=r"expected kill=SECONDS, up to 60|is no fault"):
        Fault.parse(f"kafka:kill={value}{AT}")


def test_a_misspelt_one() -> None:
    """It is refused, with what is nearest among toxics and outages."""
    with pytest.raises(UnknownName, match="did you mean 'restart'"):
        Fault.parse(f"kafka:restrat{AT}")
