"""A worker in Node is broken at each of its effects, and every payout is made and told of, and made only once."""

import pytest
from chaos import System

pytestmark = pytest.mark.drills

EFFECTS = ["http.post", "postgres.commit", "kafka.produce"]
FAULTS = ["crash-before", "crash-after", "lose-request", "lose-reply"]


def test_nothing_broken(payouts: System) -> None:
    """Each payout is one request to the bank; the worker's three kinds of effects are seen."""
    verdict = payouts.drill()

    verdict.require_holds()
    assert [verdict.requests(payout) for payout in verdict.keys] == [1, 1, 1]
    assert all(any(f"/{effect}#" in text for text in verdict.events) for effect in EFFECTS)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("effect", EFFECTS)
def test_broken_at(payouts: System, effect: str, fault: str) -> None:
    """Each payout is made once, though the bank is asked again if its answer did not arrive."""
    verdict = payouts.drill(f"payouts/{effect}:{fault}")

    verdict.require_holds()
    assert [verdict.effects(payout) for payout in verdict.keys] == [1, 1, 1]
    if effect == "http.post":
        asked_again = fault in {"crash-after", "lose-reply"}
        assert sorted(verdict.requests(payout) for payout in verdict.keys) == [1, 1, 1 + asked_again]


@pytest.mark.parametrize("payouts", ["node tests/bugs.js new-key"], indirect=True, ids=["new key"])
def test_double_payout_is_found(payouts: System) -> None:
    """A worker with a new key for each attempt pays twice, and the drill says which payout."""
    verdict = payouts.drill("payouts/http.post:crash-after")

    assert verdict.status == "violated"
    [violation] = verdict.violations
    assert (violation.invariant, verdict.effects(violation.key)) == ("one effect per key", 2)


@pytest.mark.parametrize("payouts", ["node tests/bugs.js no-await"], indirect=True, ids=["no await"])
def test_lost_message_is_found(payouts: System) -> None:
    """A worker that does not wait for the broker's answer marks what the broker never had, and the drill finds it."""
    verdict = payouts.drill("payouts/kafka.produce:lose-request")

    assert verdict.status == "violated"
    assert {violation.invariant for violation in verdict.violations} == {"everybody told"}
