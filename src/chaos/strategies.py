"""Hypothesis strategies over what a recording shows: schedules of several faults, as plain data.

A schedule is drawn up front, whole, from a list that does not change while Hypothesis draws: so it can be replayed,
pinned with ``@example``, and shrunk without a single process. Its faults are in the order in which a fault-free run
comes to their points, and those of a role that was killed are its successor's; so they will most likely fire.

`drawn` is for whoever does the choosing: it gives back schedules and runs nothing. What finds violations, and makes a
counterexample small, is `chaos.exploration`: each run costs a tenth of a second and may come out differently next time,
which a search by Hypothesis has no use for.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from chaos.errors import ChaosError
from chaos.schedule import Schedule
from chaos.services.clients import require_client
from chaos.sweep import alone, everything, selected

require_client("hypothesis", "explore")
import hypothesis  # noqa: E402 - where it is missing the line before says what to install
from hypothesis import strategies as st  # noqa: E402 - likewise
from hypothesis.database import DirectoryBasedExampleDatabase  # noqa: E402 - likewise

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from hypothesis.database import ExampleDatabase
    from hypothesis.strategies import DrawFn, SearchStrategy

    from chaos.recording import Recording
    from chaos.schedule import Fault

MAX_FAULTS = 3


def candidates(
    recording: Recording, *, faults: Sequence[str] | None = None, only: Sequence[str] = ()
) -> tuple[Fault, ...]:
    """All that can be done at one point of a recording, in the order of its points; see `chaos.ground.Ground.sweep`."""
    points = selected(recording, only)
    return tuple(alone(recording, points, everything() if faults is None else faults))


def schedules(
    choices: Iterable[Fault], *, max_faults: int = MAX_FAULTS, later: Iterable[Fault] = ()
) -> SearchStrategy[Schedule]:
    """Schedules of one to `max_faults` of these faults, each at another point; half of them about one key.

    `choices` are in order; the `later` ones can be reached only behind one of the same worker about the same key.

    Raises:
        ChaosError: there is no fault to choose from, or no room for one.
    """
    first = dict.fromkeys(choices)
    if not first or max_faults < 1:
        raise ChaosError(f"no schedules: {len(first)} faults to choose from, of which one may have {max_faults}")
    order = {fault: number for number, fault in enumerate((*first, *later))}
    keys = sorted({fault.key for fault in order if fault.key})
    pools = [
        *[list(order)] * max(1, len(keys)),
        *([fault for fault in order if fault.key in {key, ""}] for key in keys),
    ]

    @st.composite
    def draw_one(draw: DrawFn) -> Schedule:
        pool = draw(st.sampled_from(pools))
        some = draw(st.lists(st.sampled_from(pool), min_size=1, max_size=max_faults))
        return Schedule(tuple(_in_turn(sorted(some, key=order.__getitem__), first)))

    return draw_one().filter(lambda schedule: bool(schedule.faults))


def _in_turn(faults: Iterable[Fault], first: Container[Fault]) -> Iterator[Fault]:
    """Each as it is called when its worker was killed by those before it, one at a point; not what is out of reach.

    What has a name by its count alone is counted anew from then on.
    """
    kills: Counter[str] = Counter()
    taken: set[str] = set()
    broken: set[tuple[str, str]] = set()
    for fault in faults:
        again = kills[fault.worker] if fault in first else 0
        one = replace(fault, incarnation=again, nth=fault.nth if fault.key else 1) if again else fault
        if one.point not in taken and (fault in first or (fault.worker, fault.key) in broken):
            taken.add(one.point)
            broken.add((fault.worker, fault.key))
            kills[fault.worker] += fault.action.startswith("crash")
            yield one


def drawn(strategy: SearchStrategy[Schedule], count: int, seed: int) -> list[Schedule]:
    """About so many schedules, each once; the same for the same seed, strategy and version of Hypothesis."""
    found: dict[Schedule, None] = {}

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategy)
    def collect(schedule: Schedule) -> None:
        found[schedule] = None

    collect()
    return list(found)


class Saved:
    """Counterexamples of an exploration in Hypothesis's database, as text; see the module's docstring."""

    def __init__(self, database: ExampleDatabase | None, name: str) -> None:
        self._database, self._key = database, f"onecharge/{name}".encode()

    def __iter__(self) -> Iterator[Schedule]:
        for text in sorted(self._database.fetch(self._key)) if self._database is not None else ():
            try:
                yield Schedule.parse(text.decode())
            except (ChaosError, ValueError) as error:
                raise ChaosError(f"the database of examples has {text!r}, which is no schedule: {error}") from error

    def add(self, schedule: Schedule) -> None:
        """Have it tried first the next time."""
        if self._database is not None:
            self._database.save(self._key, str(schedule).encode())

    def drop(self, schedule: Schedule) -> None:
        """Forget it."""
        if self._database is not None:
            self._database.delete(self._key, str(schedule).encode())


def database(directory: Path) -> ExampleDatabase:
    """A database of examples that is kept there."""
    return DirectoryBasedExampleDatabase(directory)


def default_database() -> ExampleDatabase | None:
    """Hypothesis's database, as its settings have it.

    Its own profile for CI has none, as what it would find again would take its time there. A schedule that was found at
    night should be tried first, so there is one all the same.
    """
    found: ExampleDatabase | None = hypothesis.settings().database
    if found is None and hypothesis.settings.get_current_profile_name() == "ci":
        return database(Path(".hypothesis/examples"))
    return found
