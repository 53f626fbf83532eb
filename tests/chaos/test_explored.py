"""What an explored test judges: beside the verdict of its drill, and never against it."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from chaos import ChaosError, Undecided, Violated
from chaos.drill import Verdict
from chaos.explored import _body
from chaos.invariants import Violation
from chaos.schedule import Schedule

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEDULE = Schedule.parse("pay/http.post[key-1]#1:crash-after")


class System:
    """Something that drills: each call gives the next of these verdicts."""

    def __init__(self, *verdicts: Verdict) -> None:
        self.lane: Any = SimpleNamespace(on_verdict=None)
        self._verdicts = list(verdicts)

    def drill(self, schedule: Schedule | str) -> Verdict:
        """The next verdict, told."""
        verdict = self._verdicts.pop(0)
        verdict.schedule = Schedule.parse(schedule) if isinstance(schedule, str) else schedule
        self.lane.on_verdict(verdict)
        return verdict


def verdict(status: str = "holds") -> Verdict:
    """A verdict with that status."""
    reasons = ["it did not settle"] if status == "unknown" else []
    violations = [Violation("one effect per key", "k", "has 2 effects")] if status == "violated" else []
    return Verdict(SCHEDULE, (), reasons=reasons, violations=violations)


def run(test: Callable[..., None], *verdicts: Verdict) -> Verdict:
    """Call a test as an exploration does."""
    system: Any = System(*verdicts)
    return _body(partial(test), {"shop": system}, system, system, SCHEDULE)


def holds(shop: Any, schedule: Schedule) -> None:
    """The usual test."""
    shop.drill(schedule).require_holds()


@pytest.mark.parametrize("status", ["holds", "unknown", "violated"])
def test_verdict(status: str) -> None:
    """The verdict of its drill is that of the test, and nobody else is told of it."""
    given = verdict(status)
    assert run(holds, given) is given
    assert given.status == status


def test_own_assertion() -> None:
    """What it asserts of a run that holds is an invariant of its own."""

    def test(shop: Any, schedule: Schedule) -> None:
        assert shop.drill(schedule).effects("k") == 1, "one charge"

    [violation] = run(test, verdict()).violations
    assert violation.invariant == "the test"
    assert "one charge" in violation.detail


def test_assertion_about_an_unknown_run() -> None:
    """What it asserts of a run that proves nothing accuses nobody."""

    def test(shop: Any, schedule: Schedule) -> None:
        assert shop.drill(schedule).status == "holds"

    assert run(test, verdict("unknown")).status == "unknown"


def test_what_is_no_judgement() -> None:
    """A test that breaks down for a reason of its own has proven nothing."""

    def test(shop: Any, schedule: Schedule) -> None:
        shop.drill(schedule)
        raise OSError("no such host")

    assert run(test, verdict()).reasons == ["OSError: no such host"]


@pytest.mark.parametrize(("status", "error"), [("violated", Violated), ("unknown", Undecided)])
def test_another_drill(status: str, error: type[Exception]) -> None:
    """When it drills something else as well, and that does not hold, the test has not held."""

    def test(shop: Any, schedule: Schedule) -> None:
        shop.drill(schedule).require_holds()
        with pytest.raises(error):
            shop.drill("").require_holds()
        shop.drill("").require_holds()

    assert run(test, verdict(), verdict(status), verdict(status)).status == "violated"


def test_the_worst_of_two() -> None:
    """When it drills its schedule twice, what does not hold counts."""

    def test(shop: Any, schedule: Schedule) -> None:
        shop.drill(schedule)
        shop.drill(schedule)

    assert run(test, verdict("violated"), verdict()).status == "violated"


def test_no_drill() -> None:
    """A test that does not drill the schedule it was given is an error, not a success."""

    def test(shop: Any, schedule: Schedule) -> None:
        """Forget to."""

    with pytest.raises(ChaosError, match="has not drilled the schedule"):
        run(test)
