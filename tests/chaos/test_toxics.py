"""Toxics are plain data: their numbers make sense, and their text form is read back."""

from __future__ import annotations

import dataclasses
import math
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.errors import ChaosError, UnknownName
from chaos.toxics import (
    TOXICS,
    Bad,
    Bandwidth,
    Down,
    Latency,
    LimitData,
    ResetPeer,
    Slicer,
    SlowClose,
    Stream,
    Timeout,
    Toxic,
)

STREAMS: st.SearchStrategy[Stream] = st.sampled_from(get_args(Stream))


@st.composite
def toxics(draw: st.DrawFn) -> Toxic:
    """Any toxic that makes sense."""
    kind = draw(st.sampled_from(list(TOXICS.values())))
    if kind is Down:
        return Down()
    names = [one.name for one in dataclasses.fields(kind) if one.name != "stream"]
    numbers = {name: draw(st.integers(1, 10**6)) for name in names}
    for smaller, larger in (("jitter_ms", "latency_ms"), ("variation_bytes", "average_bytes")):
        if smaller in numbers:
            numbers[smaller] = draw(st.integers(0, numbers[larger] - 1))
    return kind(**numbers, stream=draw(STREAMS))


@settings(deadline=None)  # the machine may be busy
@given(toxics(), st.just(0.0) | st.integers(1, 6_000).map(lambda tenths: tenths / 10))
def test_text_form_is_read_back(toxic: Toxic, seconds: float) -> None:
    """What is written of a bad link is what its text form is read as."""
    bad = Bad(toxic, seconds)
    kind, _, value = str(bad).partition("=")
    assert bad == Bad.parse(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "bad"),
    [
        ("down", "", Bad(Down())),
        ("down", "1", Bad(Down(), 1.0)),
        ("timeout", "0.5", Bad(Timeout(), 0.5)),
        ("latency", "2,requests,latency_ms:200,jitter_ms:50", Bad(Latency(200, 50, stream="requests"), 2.0)),
        ("bandwidth", "both,rate_kb_s:5", Bad(Bandwidth(5, stream="both"))),
        ("slow_close", "delay_ms:0", Bad(SlowClose(0))),
        ("reset_peer", "after_ms:10", Bad(ResetPeer(10))),
        ("slicer", "average_bytes:8,variation_bytes:7", Bad(Slicer(8, 7))),
        ("limit_data", "requests,most_bytes:0,3", Bad(LimitData(0, stream="requests"), 3.0)),
    ],
)
def test_short_forms(kind: str, value: str, bad: Bad) -> None:
    """What is left out has its usual value; seconds, direction and numbers may come in any order."""
    assert bad == Bad.parse(kind, value)


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("down", "0", r"'0' has no meaning here; expected down=SECONDS \(up to 600\), each once"),
        ("down", "601", "'601' has no meaning here"),
        ("down", "1,1", "'1' has no meaning here"),
        ("down", "soon", "'soon' has no meaning here"),
        ("down", "requests", "down: it ends connections, which have no direction"),
        ("latency", "latency_ms:1,latency_ms:2", "has no meaning here; expected latency=SECONDS .*,latency_ms:NUMBER"),
        ("latency", "latency_ms:5,jitter_ms:6", "jitter_ms is 6: expected no more than latency_ms, 5"),
        ("bandwidth", "rate_kb_s:0", "rate_kb_s is 0: expected a whole number from 1 to"),
        ("timeout", "after_ms:9999999999", "after_ms is 9999999999: expected a whole number from 0 to"),
        ("slicer", "average_bytes:4,variation_bytes:4", "variation_bytes is 4: expected less than average_bytes"),
    ],
)
def test_no_sense(kind: str, value: str, said: str) -> None:
    """What makes no sense is refused, with what was found and what is expected."""
    with pytest.raises(ChaosError, match=said):
        Bad.parse(kind, value)


def test_unknown_names() -> None:
    """A toxic or a number that nobody knows is an error that names the nearest one."""
    with pytest.raises(UnknownName, match="no toxic 'latenzy': did you mean 'latency'"):
        Bad.parse("latenzy", "")
    with pytest.raises(UnknownName, match="no number of latency 'latency': did you mean 'latency_ms'"):
        Bad.parse("latency", "latency:3")


@pytest.mark.parametrize("wrong", [1.5, True, math.inf, "3"])
def test_numbers_are_whole(wrong: object) -> None:
    """A number that is no whole one is refused where the toxic is made, not where Toxiproxy is told."""
    with pytest.raises(ChaosError, match=r"latency_ms is .*: expected a whole number"):
        Latency(wrong)  # type: ignore[arg-type]


def test_what_toxiproxy_is_told() -> None:
    """It is told its own names, and a toxic for each direction."""
    assert Latency(20, 10, stream="both").told == [
        {"name": f"latency-{way}", "type": "latency", "stream": way, "attributes": {"latency": 20, "jitter": 10}}
        for way in ("upstream", "downstream")
    ]
    assert Down().told == []
