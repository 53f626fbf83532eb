"""Systems of one kind side by side on shared servers: what goes where, what is replaced, what is judged at the end."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from chaos import ChaosError, Schedule, Session, Undecided, UnknownName, Violated, one_effect_per_key
from chaos.history import Began, Judged
from chaos.invariants import Violation
from chaos.sweep import outcome
from tests.chaos.owner import until
from tests.chaos.test_recording import jobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from chaos import System, Verdict

HOLDS = "w~0/http.post[key-1]#1:lose-request"
VIOLATES = "w~0/http.post[key-1]#1:lose-reply"  # it asks again, and its service does not see to it
LASTS = "w~0/http.post[key-1]#1:delay=1"
UNKNOWN = "w~0/http.post[key-1]#7:crash-before"  # there is no seventh


@dataclass
class Shop:
    """Makes systems, and knows those that it has made."""

    breaks: int = -1  # the one that cannot be made
    made: list[System] = field(default_factory=list)
    left: list[System] = field(default_factory=list)
    begun: list[int] = field(default_factory=list)

    @contextlib.contextmanager
    def __call__(self, session: Session) -> Iterator[System]:
        """One of them, for which a job that is done twice is a violation."""
        number = len(self.begun)
        self.begun.append(number)
        if number == self.breaks:
            until(lambda: len(self.begun) > 1)
            raise ZeroDivisionError("this one cannot be made")
        with jobs(session) as system:
            system.invariants = (*system.invariants, one_effect_per_key(system.invariants[0].ledger))
            self.made.append(system)
            try:
                yield system
            finally:
                self.left.append(system)

    @property
    def names(self) -> list[str]:
        """The names of their lanes, which are those of their databases."""
        return [system.lane.name for system in self.made]


def databases(session: Session) -> set[str]:
    """The databases of lanes that there are."""
    postgres = session.services.postgres
    with psycopg.connect(postgres.database_url("postgres")) as connection:
        return {name for (name,) in connection.execute("select datname from pg_database where datname like 'lane%'")}


def where(shop: Shop, verdict: Verdict) -> str:
    """The lane in which a schedule was carried out."""
    [system] = [one for one in shop.made if one.ledgers == verdict.ledgers]
    return system.lane.name


def span(verdict: Verdict) -> tuple[float, float]:
    """From when until when a drill went on."""
    [began] = [event.at for event in verdict.history if isinstance(event, Began)]
    [judged] = [event.at for event in verdict.history if isinstance(event, Judged)]
    return began, judged


def test_side_by_side(onecharge: Session) -> None:
    """Two lanes carry out schedules at the same time, in databases of their own; what holds keeps its lane."""
    shop = Shop()
    with onecharge.lanes(shop, 2) as lanes:
        assert databases(onecharge) >= set(shop.names)
        verdicts = list(lanes.each([Schedule.parse(HOLDS)] * 8))
    assert [verdict.status for verdict in verdicts] == ["holds"] * 8
    assert len(shop.made) == len(set(shop.names)) == 2
    times = {name: [span(one) for one in verdicts if where(shop, one) == name] for name in shop.names}
    assert all(times.values()), times
    one, other = times.values()
    assert any(a < d and c < b for a, b in one for c, d in other), times
    assert not databases(onecharge) & set(shop.names)


def test_lane_is_replaced(onecharge: Session) -> None:
    """A schedule that violated, or proved nothing, leaves its lane to nobody: the next has a fresh one."""
    shop = Shop()
    with onecharge.lanes(shop, 1) as lanes:
        told = [
            (verdict.status, where(shop, verdict))
            for text in (HOLDS, VIOLATES, HOLDS, UNKNOWN, HOLDS, HOLDS)
            for verdict in lanes.each([Schedule.parse(text)])
        ]
        assert [status for status, _ in told] == ["holds", "violated", "holds", "unknown", "holds", "holds"]
        first, second, third = shop.names
        assert [name for _, name in told] == [first, first, second, second, third, third]
        assert databases(onecharge) & set(shop.names) == {third}
        assert shop.left == shop.made[:2]
    assert not databases(onecharge) & set(shop.names)


def test_what_cannot_be_done_keeps_its_lane(onecharge: Session) -> None:
    """A fault that is unfit for its point has broken nothing, and the lane is as good as before."""
    shop = Shop()
    with onecharge.lanes(shop, 1) as lanes:
        verdict = lanes.drill("w~0/http.post[key-1]#1:refuse=NOT_COORDINATOR")
        assert (outcome(verdict), verdict.status) == ("unfit", "unknown")
        lanes.drill(HOLDS).require_holds()
    assert len(shop.made) == 1


def test_replacement_knows_the_recording(onecharge: Session) -> None:
    """What was recorded in one lane is known in all of them, also in those that come later."""
    shop = Shop()
    with onecharge.lanes(shop, 2) as lanes:
        recording = lanes.record()
        assert [system.recording for system in shop.made] == [recording] * 2
        assert lanes.drill(VIOLATES).status == "violated"
        for _ in range(4):
            with pytest.raises(UnknownName, match=r"did you mean 'w~0/http\.post\[key-2\]#1'"):
                lanes.drill("w/http.post[key-3]#1:crash-before")
            lanes.drill(HOLDS).require_holds()
    assert len(shop.made) == 3
    assert shop.made[2].recording is recording


def test_sweep_in_lanes(onecharge: Session) -> None:
    """A sweep in two lanes tries what one in a single lane does, in the same order, and finds the same."""
    what: dict[str, Any] = {"only": ["w/http.post"], "faults": ["crash-before", "crash-after", "lose-reply"]}
    told = []
    for count in (1, 2):
        with onecharge.lanes(Shop(), count) as lanes:
            sweep = lanes.sweep(**what)
        told.append([(str(verdict.schedule), verdict.status) for verdict in sweep.verdicts])
    assert told[0] == told[1]
    assert [status for _, status in told[0]] == ["holds", "violated", "violated"] * 2


@pytest.mark.parametrize("breaks", [0, 1])
def test_factory_that_raises(onecharge: Session, breaks: int) -> None:
    """A system that cannot be made says why; the one beside it, which is not finished yet, is left as well."""
    shop = Shop(breaks=breaks)
    lanes = onecharge.lanes(shop, 2)  # kept, or what it forgets to leave is left when it is collected
    with pytest.raises(ZeroDivisionError, match="this one cannot be made"), lanes:
        pytest.fail("was entered")
    assert len(shop.left) == len(shop.made) == 1
    assert not databases(onecharge) & set(shop.names)
    running = {process.name for process in onecharge.supervisor.processes if process.exit is None}
    assert not [name for name in running if name.startswith(tuple(shop.names))]


def test_replacement_that_cannot_be_made(onecharge: Session) -> None:
    """Where a fresh lane cannot be made the next schedule there says so, and nothing is left."""
    shop = Shop(breaks=1)

    def leave() -> None:
        with onecharge.lanes(shop, 1) as lanes:
            assert lanes.drill(VIOLATES).status == "violated"
            lanes.drill(HOLDS)

    with pytest.raises(ZeroDivisionError):
        leave()
    assert len(shop.left) == len(shop.made) == 1
    assert not databases(onecharge) & set(shop.names)


def test_leaving_while_schedules_are_under_way(onecharge: Session) -> None:
    """Whoever leaves early, such as at an error, leaves no lane under the feet of its schedule."""
    shop = Shop()

    def leave() -> None:
        with onecharge.lanes(shop, 2) as lanes:
            for _ in lanes.each(map(Schedule.parse, (HOLDS, LASTS))):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        leave()
    told = [path.read_text() for path in (system.lane.files / "history.jsonl" for system in shop.made)]
    assert [text.count('"status":"holds"') for text in told] == [1, 1]
    assert not databases(onecharge) & set(shop.names)


def test_found_at_the_end(onecharge: Session) -> None:
    """What comes after its drill was judged is found when the lanes are left, whichever lane it is in."""
    shop = Shop()
    held: list[Verdict] = []

    def leave() -> None:
        with onecharge.lanes(shop, 2) as lanes:
            held.extend(lanes.each([Schedule.parse(HOLDS)] * 4))
            assert {verdict.status for verdict in held} == {"holds"}
            ledger = shop.made[1].ledgers[0].path
            ledger.write_text(2 * ledger.read_text())

    with pytest.raises(Violated, match="has 2 effects"):
        leave()
    assert {verdict.status for verdict in held} == {"holds", "violated"}
    assert not databases(onecharge) & set(shop.names)


def test_found_when_a_lane_is_replaced(onecharge: Session) -> None:
    """What comes late in a lane that is replaced is found as well, when all are left."""
    shop = Shop()
    held: list[Verdict] = []

    def leave() -> None:
        with onecharge.lanes(shop, 1) as lanes:
            held.append(lanes.drill(HOLDS))
            ledger = held[0].ledgers[0].path
            ledger.write_text(2 * ledger.read_text())
            with pytest.raises(Undecided):
                lanes.drill(UNKNOWN).require_holds()
            lanes.drill(HOLDS).require_holds()

    with pytest.raises(Violated, match="has 2 effects"):
        leave()
    assert held[0].status == "violated"


def test_own_error_comes_first(onecharge: Session) -> None:
    """An error in the block is what is raised, and not what is found late besides."""
    shop = Shop()

    def leave() -> None:
        with onecharge.lanes(shop, 1) as lanes:
            held = lanes.drill(HOLDS)
            held.violations.append(Violation("the test", "", "says no"))
            lanes.drill("x/http.post:crash-before")

    with pytest.raises(ChaosError, match="no worker 'x'"):
        leave()


def test_no_lane(tmp_path: Path) -> None:
    """There is no run in no lane."""
    with pytest.raises(ChaosError, match="0 lanes: expected at least one"):
        Session(tmp_path, lanes=0)
    with pytest.raises(ChaosError, match="0 lanes: expected at least one"):
        Session(tmp_path).lanes(Shop(), 0)
