"""An exploration, on a ground that is a function: what it tries, finds, keeps and says, and when it ends."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis.database import InMemoryExampleDatabase

from chaos import ChaosError, Undecided, UnknownName, Violated, Worker
from chaos.armed import Fired
from chaos.drill import Verdict
from chaos.exploration import Explorer
from chaos.ground import Ground
from chaos.history import Asked, Began, Event
from chaos.invariants import Violation
from chaos.recording import Recording
from chaos.schedule import Schedule
from chaos.strategies import Saved
from chaos.sweep import Shard, alone, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from chaos.errors import Told

POINTS = tuple(
    f"{worker}~0/{site}[key-{n}]#1"
    for worker, site in (("relay", "kafka.produce"), ("pay", "http.post"), ("pay", "postgres.commit"))
    for n in (1, 2, 3)
)
FIRST = Schedule.parse(f"{POINTS[0]}:crash-before")
RECORDING = Recording(POINTS, (), (), frozenset(), frozenset(), {}, frozenset(), "all", (Verdict(Schedule(), ()),))


def test_a_link_that_a_worker_does_not_have() -> None:
    """A fault of each worker's own link is tried where there is one, and the worker uses it."""
    recording = replace(RECORDING, links=frozenset({"pay-gateway", "pay-http", "relay-kafka", "relay-http"}))
    own = [f"{{worker}}-{service}:down=1" for service in ("gateway", "http", "kafka")]
    tried = {str(fault) for fault in alone(recording, POINTS, own)}
    used = {"relay": ("kafka",), "pay": ("gateway", "http")}
    assert tried == {
        f"{worker}-{service}:down=1@{point}"
        for point in POINTS
        for worker in [point.partition("~")[0]]
        for service in used[worker]
    }


class Place(Ground):
    """A ground on which a schedule is carried out by `what`, which may break a verdict that holds."""

    workers = (Worker("relay", "relay"), Worker("pay", "pay"))

    def __init__(self, what: Callable[[Schedule, Verdict], object] = lambda _schedule, _verdict: None) -> None:
        self.what = what
        self.ran: list[Schedule] = []
        self.told: list[Told] = []
        self.lines: list[str] = []
        self.host: Any = SimpleNamespace(on_verdict=self.told.append, live=self.lines.append, shard=None)
        self.recording = RECORDING
        self.failing = False

    def record(self) -> Recording:  # noqa: D102 - see `Ground`
        return self.recording

    def each(self, schedules: Iterable[Schedule], body: object = None) -> Iterator[Verdict]:  # noqa: D102
        assert body is None
        for schedule in schedules:
            self.ran.append(schedule)
            events: list[Event] = [Began(1.0, str(schedule)), Asked(2.0, ("pay~1/http.post#1",), "pay.0", 1, 1)]
            verdict = Verdict(schedule, (), keys=("k",), history=events)
            verdict.fired = [Fired(str(fault), fault.worker, "") for fault in schedule.faults]
            self.what(schedule, verdict)
            yield verdict


def bug(rate: float = 1.0, seed: int = 0) -> Callable[[Schedule, Verdict], None]:
    """A bug that shows when the relay and the payment worker crash about the same key, in some of the runs."""
    dice = random.Random(seed)

    def what(schedule: Schedule, verdict: Verdict) -> None:
        crashes = {(fault.worker, fault.key) for fault in schedule.faults if fault.action.startswith("crash")}
        if any({("relay", key), ("pay", key)} <= crashes for _, key in crashes) and dice.random() < rate:
            verdict.violations.append(Violation("one effect per key", "k", "has 2 effects"))

    return what


def explore(place: Place, **options: Any) -> Any:
    """Explore a place, quickly."""
    return Explorer(place, **{"seconds": 20, "seed": 1, **options})


def test_a_correct_system() -> None:
    """Different schedules are tried, until there were enough; live lines say how far it is."""
    place = Place()
    found = explore(place, count=150).run()
    found.require_holds()
    assert found.status == "holds"
    assert len(set(place.ran)) == len(place.ran) == len(found.verdicts) == 150
    assert {len(schedule.faults) for schedule in place.ran} >= {2, 3}, "single faults are for sweeps"
    assert all(len(verdict.history) == 1 for verdict in found.verdicts), "thousands of histories are not kept"
    assert place.lines[-1].startswith("explored 150 · ")
    assert "pairs: " in found.story()


def test_two_faults_are_found_and_explained() -> None:
    """The smallest schedule, how often it violates, and the command that runs it again are in the story."""
    place = Place(bug())
    found = explore(place, replay=lambda text: f"try '{text}'").run()
    with pytest.raises(Violated, match="violated in 10 of 10 runs"):
        found.require_holds()
    smallest = found.counterexample.smallest.schedule
    assert sorted(fault.worker for fault in smallest.faults) == ["pay", "relay"]
    assert {(fault.action, fault.key) for fault in smallest.faults} == {("crash-before", "key-1")}
    assert f"replay      try '{smallest}'" in found.story()
    assert "it may not be the smallest" not in found.story()
    assert [verdict.status for verdict in found.verdicts].count("violated") == 1, "it ends with the first"


@pytest.mark.parametrize("seed", range(8))
def test_flaky_bug(seed: int) -> None:
    """A bug that shows in 60 % of the runs is found, made small, and told as what it is; never an error."""
    found = explore(Place(bug(0.6, seed)), seed=seed).run()
    example = found.counterexample
    assert found.status == "violated"
    assert len(example.smallest.schedule.faults) == 2
    assert example.smallest.violations
    assert 2 <= example.violated <= 9
    assert f"violated in {example.violated} of 10 runs" in found.story()


@pytest.mark.parametrize("seed", range(8))
def test_what_can_be_replayed_is_preferred(seed: int) -> None:
    """A schedule that violates now and then does not end the search: one that always does is what is told."""
    dice = random.Random(seed)

    def what(schedule: Schedule, verdict: Verdict) -> None:
        sites = {fault.site for fault in schedule.faults if fault.action == "crash-before"}
        if "postgres.commit" in sites or ("http.post" in sites and dice.random() < 0.3):
            verdict.violations.append(Violation("one effect per key", "k", "has 2 effects"))

    found = explore(Place(what), seed=seed).run()
    assert (found.counterexample.violated, found.counterexample.runs) == (10, 10)


def test_some_are_enough() -> None:
    """Where nothing violates every time, the search ends with the fifth all the same."""
    found = explore(Place(bug(0.3)), seconds=1000).run()
    assert [verdict.status for verdict in found.verdicts].count("violated") == 5
    assert found.counterexample.violated < 9


def test_same_seed() -> None:
    """The same seed tries the same schedules; another does not."""
    first, second, other = Place(), Place(), Place()
    explore(first, count=60).run()
    explore(second, count=60).run()
    explore(other, count=60, seed=2).run()
    assert first.ran == second.ran != other.ran


def test_budgets() -> None:
    """The search ends with its seconds, shrinking with its own; a budget of nothing is refused."""

    def slow(_schedule: Schedule, _verdict: Verdict) -> None:
        time.sleep(0.02)

    began = time.monotonic()
    found = explore(Place(slow), seconds=1).run()
    assert found.status == "holds"
    assert time.monotonic() - began < 10

    def slow_bug(schedule: Schedule, verdict: Verdict) -> None:
        slow(schedule, verdict)
        bug()(schedule, verdict)

    found = explore(Place(slow_bug), shrink_s=0).run()
    assert found.counterexample.smallest is found.counterexample.found
    assert "it may not be the smallest" in found.story()
    with pytest.raises(ChaosError, match="a budget of 0 s"):
        explore(Place(), seconds=0).run()


def test_everything_was_tried() -> None:
    """Where nothing is left to draw it ends, and says so."""
    found = explore(Place(), faults=["crash-before"], only=["relay"], max_faults=1).run()
    assert found.status == "holds"
    assert len(found.verdicts) == 3
    assert "nothing is left to try" in found.story()


def test_what_cannot_be_done_is_not_asked_for_again() -> None:
    """A kind of fault that was unfit at a kind of place is left out from the next round on."""

    def unfit(schedule: Schedule, verdict: Verdict) -> None:
        bad = [f"{fault} was reached and not carried out" for fault in schedule.faults if fault.action == "repeat"]
        verdict.unfit += bad
        verdict.reasons += bad

    place = Place(unfit)
    explore(place, count=400).run()
    tried = [any(fault.action == "repeat" for fault in schedule.faults) for schedule in place.ran]
    assert sum(tried[:100]) > 0
    assert not any(tried[200:])


def test_a_recovery_is_broken_too() -> None:
    """What only recoveries show is broken in later rounds, behind a fault that may bring it about."""

    def recovery(schedule: Schedule, verdict: Verdict) -> None:
        if schedule.faults[0].action.startswith("crash"):
            verdict.history.append(Asked(3.0, ("pay~1/http.put#1", "pay~1/http.put[key-1]#1"), "pay.0", 1, 2))

    place = Place(recovery)
    explore(place, count=300).run()
    behind = [schedule for schedule in place.ran if any(fault.site == "http.put" for fault in schedule.faults)]
    assert behind
    assert all(schedule.faults[0].site != "http.put" for schedule in behind)


def test_counterexamples_are_kept() -> None:
    """The next run tries what an earlier one found first; when it holds each time it is fixed, and forgotten."""
    saved = Saved(InMemoryExampleDatabase(), "a test")
    smallest = explore(Place(bug()), saved=saved).run().counterexample.smallest.schedule
    assert list(saved) == [smallest]
    place = Place(bug())
    assert explore(place, saved=saved).run().status == "violated"
    assert place.ran[0] == smallest
    found = explore(Place(), saved=saved, count=5).run()
    assert found.status == "holds"
    assert f"FIXED: {smallest} holds in 10 of 10 runs" in found.story()
    assert list(saved) == []


def test_foreign_database() -> None:
    """Counterexamples of another system, and what is none, are refused in one line that says so."""
    saved = Saved(InMemoryExampleDatabase(), "a test")
    saved.add(Schedule.parse("baker/http.post#1:crash-before"))
    with pytest.raises(ChaosError, match=r"is another system's: it has baker.*no worker 'baker'"):
        explore(Place(), saved=saved).run()
    database = InMemoryExampleDatabase()
    database.save(b"onecharge/a test", b"\xff no schedule")
    with pytest.raises(ChaosError, match="which is no schedule"):
        explore(Place(), saved=Saved(database, "a test")).run()


def test_point_that_is_gone() -> None:
    """A counterexample about a point that the system has no more is forgotten, and said."""

    def gone(schedule: Schedule, _verdict: Verdict) -> None:
        if schedule.faults[0].site == "http.delete":
            raise UnknownName("point", schedule.faults[0].point, POINTS)

    saved = Saved(InMemoryExampleDatabase(), "a test")
    saved.add(Schedule.parse("pay/http.delete#1:crash-before"))
    found = explore(Place(gone), saved=saved, count=5).run()
    assert found.status == "holds"
    assert "cannot be run any more: pay~0/http.delete#1:crash-before" in found.story()
    assert list(saved) == []


def test_pinned() -> None:
    """Pinned schedules are tried first, whatever is drawn."""
    pinned = Schedule.parse("pay~0/http.post[key-2]#1:lose-reply")
    place = Place()
    explore(place, pinned=[pinned], count=5).run()
    assert place.ran[0] == pinned


@pytest.mark.parametrize("seed", range(5))
def test_smaller_is_about_as_often(seed: int) -> None:
    """A smaller schedule that violates now and then only is no explanation of one that always does."""
    always = Schedule.parse(f"{POINTS[1]}:crash-after; {POINTS[4]}:crash-late=0.1; {POINTS[7]}:delay=0.05")
    dice = random.Random(seed)

    def what(schedule: Schedule, verdict: Verdict) -> None:
        if schedule == always or (len(schedule.faults) < 3 and dice.random() < 0.4):
            verdict.violations.append(Violation("one effect per key", "k", "has 2 effects"))

    found = explore(Place(what), pinned=[always]).run().counterexample
    assert (found.smallest.schedule, found.violated, found.runs) == (always, 10, 10)


def test_replayed() -> None:
    """One schedule is run ten times: how often it violates is told, or that it is fixed."""
    schedule = Schedule.parse(f"{POINTS[0]}:crash-before; {POINTS[3]}:crash-before")
    found = explore(Place(bug(0.6))).replayed(schedule)
    assert found.status == "violated"
    assert 2 <= found.counterexample.violated <= 9
    assert found.story().count(f"violated: {schedule}") == 1, "its story is told once"
    found = explore(Place()).replayed(schedule)
    found.require_holds()
    assert "FIXED" in found.story()
    unknown = explore(Place(lambda _schedule, verdict: verdict.reasons.append("why not"))).replayed(schedule)
    assert unknown.status == "unknown"
    assert "FIXED" not in unknown.story()


def test_replayed_where_no_fault_is_needed() -> None:
    """A schedule is run again also where the bug showed in the fault-free runs, which is told; it is not fixed then."""
    schedule = Schedule.parse(f"{POINTS[0]}:crash-before; {POINTS[3]}:crash-before")
    worse, place = Verdict(Schedule(), ()), Place(bug())
    worse.violations.append(Violation("order per key", "k", "2 came before 1"))
    place.recording = replace(RECORDING, runs=(worse,), violations=("the fault-free run is violated: order per key",))
    found = explore(place).replayed(schedule)
    assert "violated in 10 of 10 runs" in found.story()
    assert "unknown     the fault-free run is violated" in found.story()

    place.what = lambda _schedule, _verdict: None
    found = explore(place).replayed(schedule)
    assert (found.status, len(found.verdicts)) == ("violated", 10)
    assert "FIXED" not in found.story()

    def missing(schedule: Schedule, _verdict: Verdict) -> None:
        raise UnknownName("point", str(schedule), [])

    place.what = missing
    with pytest.raises(UnknownName):
        explore(place).replayed(schedule)
    assert "the fault-free run is violated" in place.told[0].story(), "why there is no such point is told"


@pytest.mark.parametrize(("often", "smallest"), [(1.0, "no fault"), (0.2, str(FIRST)), (0.0, str(FIRST))])
def test_explored_where_no_fault_is_needed(often: float, smallest: str) -> None:
    """A violation in a fault-free run is tried again without a fault; where it is rare, the search goes on beside it.

    Either way there is a line that replays it.
    """
    dice = random.Random(3)

    def what(schedule: Schedule, verdict: Verdict) -> None:
        if schedule.faults[:1] == FIRST.faults or dice.random() < often:
            verdict.violations.append(Violation("order per key", "k", "2 came before 1"))

    place = Place(what)
    saved = Saved(InMemoryExampleDatabase(), "a test")
    place.recording = replace(RECORDING, violations=("the fault-free run is violated: order per key",))
    found = explore(place, saved=saved, max_faults=1, replay=lambda text: f"try '{text}'").run()
    assert found.status == "violated"
    assert f"smallest    {smallest}: violated in 10 of 10 runs" in found.story()
    text = "" if smallest == "no fault" else smallest
    assert f"replay      try '{text}'" in found.story()
    assert place.ran[0] == Schedule()
    assert list(saved) == [Schedule.parse(text)]

    mended = explore(Place()).replayed(Schedule.parse(text))
    mended.require_holds()
    assert f"FIXED: {smallest} holds in 10 of 10 runs" in mended.story()


@pytest.mark.parametrize("begin", [lambda place: explore(place).run(), run_sweep])
def test_an_interrupt_comes_without_its_place(begin: Callable[[Place], object]) -> None:
    """Ctrl-C between two lines has no line in Python 3.11, by which pytest fails: what is raised is from elsewhere."""

    def interrupt(_schedule: Schedule, _verdict: Verdict) -> None:
        raise KeyboardInterrupt

    place = Place(interrupt)
    with pytest.raises(KeyboardInterrupt) as raised:
        begin(place)
    assert "each" not in {entry.name for entry in raised.traceback}
    assert (raised.value.__cause__, raised.value.__suppress_context__) == (None, True)
    assert "it was interrupted" in place.told[0].story()


def test_fixed_is_what_was_carried_out_in_full() -> None:
    """A counterexample of which a fault is not reached any more, or a run proves nothing, is kept, and not fixed."""
    schedule = Schedule.parse(f"{POINTS[0]}:crash-before; {POINTS[3]}:crash-before")
    saved = Saved(InMemoryExampleDatabase(), "a test")
    saved.add(schedule)

    def missing(schedule: Schedule, verdict: Verdict) -> None:
        verdict.not_reached += schedule.faults[1:]

    found = explore(Place(missing), saved=saved, count=5).run()
    assert "FIXED" not in found.story()
    assert list(saved) == [schedule]
    assert explore(Place(missing)).replayed(schedule).status == "unknown"

    place = Place(lambda _schedule, verdict: verdict.reasons.append("not settled") if len(place.ran) == 3 else None)
    found = explore(place, saved=saved, count=5).run()
    assert (found.status, list(saved)) == ("unknown", [schedule])


def test_nothing_that_could_be_done_is_not_green() -> None:
    """Where every fault is unfit, nothing is proven."""

    def unfit(schedule: Schedule, verdict: Verdict) -> None:
        verdict.unfit = [f"{fault} was reached and not carried out" for fault in schedule.faults]
        verdict.reasons, verdict.fired = list(verdict.unfit), []

    found = explore(Place(unfit), count=400).run()
    assert found.status == "unknown"
    assert "no schedule could be carried out" in found.story()
    assert explore(Place(unfit)).replayed(Schedule.parse(f"{POINTS[0]}:repeat")).status == "unknown"


def test_what_was_found_outlives_what_goes_wrong_then() -> None:
    """An error after a violation was found is raised, and the violation was told and kept by then."""

    def worse(schedule: Schedule, verdict: Verdict) -> None:
        bug()(schedule, verdict)
        if place.failing:
            raise ChaosError("no lane could be made")
        place.failing = bool(verdict.violations)

    place = Place(worse)
    saved = Saved(InMemoryExampleDatabase(), "a test")
    with pytest.raises(ChaosError, match="no lane could be made"):
        explore(place, saved=saved).run()
    [told] = place.told
    assert told.status == "violated"
    assert "no lane could be made" in told.story()
    assert len(list(saved)) == 1


def test_unknown_is_never_green() -> None:
    """A schedule that proves nothing makes the exploration unknown, as does a recording that does."""
    found = explore(Place(lambda _schedule, verdict: verdict.reasons.append("it did not settle")), count=5).run()
    with pytest.raises(Undecided, match="it did not settle"):
        found.require_holds()
    place = Place()
    place.recording = replace(RECORDING, reasons=("a hole",))
    found = explore(place, count=5).run()
    assert (found.status, place.ran) == ("unknown", [])
    assert "a hole" in found.story()


def test_baseline_of_shards(tmp_path: Path) -> None:
    """Each shard compares the points with the baseline, which only a whole sweep writes."""
    baseline = tmp_path / "points.txt"
    shard = Shard(1, 2)
    sweep = run_sweep(Place(), baseline=baseline, shard=shard)
    assert (sweep.status, len(sweep.reasons)) == ("unknown", 1)
    assert run_sweep(Place(), baseline=baseline).status == "unknown"
    assert run_sweep(Place(), baseline=baseline, shard=shard).status == "holds"
    baseline.write_text(baseline.read_text().replace("key-3", "key-4"))
    sweep = run_sweep(Place(), baseline=baseline, shard=shard)
    assert sweep.status == "unknown"
    assert "not in the baseline points.txt: pay~0/http.post[key-3]#1" in sweep.reasons
