"""Faults and schedules are plain data with a text form that can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.errors import ChaosError, UnknownName
from chaos.faults import registered
from chaos.schedule import Fault, Schedule, apart

NAMES = st.text("aZ0_.-", min_size=1)
ACTIONS = st.sampled_from(sorted(registered()))
NUMBERS = st.integers(0, 10**6)
FAULTS = st.builds(Fault, NAMES, NAMES, ACTIONS, st.integers(1, 10**6), NUMBERS, st.just("") | NAMES) | st.builds(
    Fault, NAMES, NAMES, st.just("lose-reply"), value=st.sampled_from(["", "reset", "silent"])
)
KEYS = st.just("") | st.text("aZ0_.-@:=", min_size=1)
BAD_LINKS = st.builds(
    Fault,
    NAMES,
    NAMES,
    st.sampled_from(["latency", "timeout"]),
    st.integers(1, 10**6),
    NUMBERS,
    KEYS,
    st.sampled_from(["", "1", "0.5,requests", "both"]),
    NAMES,
)


@settings(deadline=None)  # the machine may be busy
@given(st.builds(Schedule, st.lists(FAULTS | BAD_LINKS).map(tuple)))
def test_text_form_is_read_back(schedule: Schedule) -> None:
    """Every schedule is what its text form is read as."""
    assert schedule == Schedule.parse(str(schedule))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("payment/payment.charged#2:crash-before", Fault("payment", "payment.charged", nth=2)),
        ("payment~1/a.b:crash-before", Fault("payment", "a.b", incarnation=1)),
        (" relay/sent#10:crash-before ", Fault("relay", "sent", nth=10)),
        ("relay/a.b[key-1]:crash-after", Fault("relay", "a.b", "crash-after", key="key-1")),
        ("relay/a.b#3:lose-reply=silent", Fault("relay", "a.b", "lose-reply", nth=3, value="silent")),
        ("relay/a.b:freeze=held,2.5", Fault("relay", "a.b", "freeze", value="held,2.5")),
        (
            "payment-kafka:down=1@payment~1/http.post[key-1]#2",
            Fault("payment", "http.post", "down", 2, 1, "key-1", "1", "payment-kafka"),
        ),
        ("a-b-http:timeout@api/x", Fault("api", "x", "timeout", link="a-b-http")),
    ],
)
def test_short_forms(text: str, fault: Fault) -> None:
    """What is left out of a fault is the first arrival of the first incarnation."""
    assert fault == Fault.parse(text)


@pytest.mark.parametrize(
    "text", ["", "payment", "payment/x", "payment/x#0:crash-before", "/x:crash-before", "p~/x:crash-before", "p/x#1:"]
)
def test_no_fault(text: str) -> None:
    """What has not the form of a fault is refused, with the form that is expected."""
    with pytest.raises(ChaosError, match=r"expected worker\[~incarnation\]/site\[\[key\]\]\[#n\]:action\[=value\]"):
        Fault.parse(text)


@settings(deadline=None)  # as above
@given(FAULTS | BAD_LINKS)
def test_taken_apart(fault: Fault) -> None:
    """A fault's text says where and what, whatever stands in its key."""
    assert (fault.point, fault.act) == apart(str(fault))


def test_unknown_toxic() -> None:
    """A toxic nobody knows is an error that names the nearest one; faults of a point are no toxics."""
    with pytest.raises(UnknownName, match="did you mean 'latency'"):
        Fault.parse("payment-kafka:latenci=1@payment/x")
    with pytest.raises(UnknownName, match="no toxic, nor outage, 'crash-after'"):
        Fault.parse("payment-kafka:crash-after@payment/x")


def test_unknown_action() -> None:
    """An action nobody knows is an error that names the nearest one."""
    with pytest.raises(UnknownName, match="did you mean 'crash-before'"):
        Fault.parse("payment/x:crash-befor")


def test_empty_schedule() -> None:
    """An empty text breaks nothing, an empty fault is none; faults are separated by semicolons and keep their order."""
    assert Schedule.parse("") == Schedule()
    with pytest.raises(ChaosError, match="is no fault"):
        Schedule.parse("a/x:crash-before;")
    assert [fault.worker for fault in Schedule.parse("b/x:crash-before;a/x:crash-before").faults] == ["b", "a"]
