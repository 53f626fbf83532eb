"""Where schedules are carried out, and what can be asked of every such place: to be swept, and to be explored.

A place is a running system (`chaos.system`), or several of the same kind side by side (`chaos.lanes`).
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

from chaos.sweep import WHOLE, run_sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path
    from typing import TypeAlias

    from chaos.drill import Verdict
    from chaos.errors import Told
    from chaos.exploration import Exploration
    from chaos.lane import Lane
    from chaos.recording import Recording
    from chaos.schedule import Schedule
    from chaos.session import Session
    from chaos.sweep import Sweep
    from chaos.system import System

    Body: TypeAlias = Callable[[System, Schedule], Verdict]
    from chaos.worker import Worker


class Ground(abc.ABC):
    """See the module's docstring. `workers` are the roles that there are; `host` knows who listens, and the shard."""

    workers: Sequence[Worker]
    host: Lane | Session

    @abc.abstractmethod
    def record(self) -> Recording:
        """Find out what can be broken there: run the workload twice without a fault. See `chaos.recording`."""

    @abc.abstractmethod
    def each(self, schedules: Iterable[Schedule], body: Body | None = None) -> Iterator[Verdict]:
        """Carry out schedules, taken as there is room for them; their verdicts, as they come.

        `body` is how one is carried out on a system; by default it is a drill, and no more.
        """

    def tell(self, told: Told) -> None:
        """Let whoever listens know, such as pytest's summary."""
        self.host.on_verdict(told)

    def live(self, text: str) -> None:
        """Show how far something is that takes long, where somebody looks."""
        self.host.live(text)

    def sweep(
        self,
        *,
        faults: Sequence[str] | None = None,
        only: Sequence[str] = (),
        depth: int = 1,
        baseline: Path | None = None,
        until_violated: bool = False,
    ) -> Sweep:
        """Record, then break each point in each way, and say what came of it. See `chaos.sweep`.

        Args:
            faults: what to do at each point, such as ``crash-after`` or ``freeze=held,0.2``; by default all there is.
                Of links and servers, which take seconds, only what is named: ``{worker}-postgres:down=1`` is that
                link of whoever comes to the point, ``kafka:kill`` the server (`chaos.toxics`, `chaos.outages`).
            only: workers, or sites of workers such as ``payment/http.post``, to break; by default all.
            depth: 2 to break again at every point of each recovery.
            baseline: a file with the points that are expected. Where there is none it is written, to be looked at.
            until_violated: end at the first schedule that breaks an invariant.
        """
        sweep = run_sweep(
            self,
            faults=faults,
            only=only,
            depth=depth,
            baseline=baseline,
            until_violated=until_violated,
            shard=self.host.shard or WHOLE,
        )
        self.tell(sweep)
        return sweep

    def explore(
        self,
        *,
        seconds: float = 60.0,
        max_faults: int = 3,
        count: int | None = None,
        faults: Sequence[str] | None = None,
        only: Sequence[str] = (),
        seed: int | None = None,
    ) -> Exploration:
        """Record, then try schedules of several faults. See `chaos.exploration`.

        Args:
            seconds: of the search, and of runs that say how often what is found violates. It is made smaller in a
                minute more.
            max_faults: in one schedule.
            count: of schedules, after which it ends as well.
            faults: what to do at points, as for `sweep`.
            only: workers, or sites of workers, to break; by default all.
            seed: of what is drawn.
        """
        from chaos.exploration import Explorer  # noqa: PLC0415 - who only sweeps has no need of Hypothesis

        exploration = Explorer(self, seconds, max_faults, count, faults, only, seed=seed).run()
        self.tell(exploration)
        return exploration
