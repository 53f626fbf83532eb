"""Twin: gauges that are as they were when somebody last knew."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.observe import exporter

if TYPE_CHECKING:
    from concurrent.futures import Future

    from pipeline.observe.postgres import Reading


class Remembers(exporter.Source):
    """Spares dashboards the gaps."""

    last: tuple[Reading, ...] = ()

    def told(self, asked: Future[exporter.Answer], deadline: float) -> list[Reading]:
        """BUG: should say nothing of what it does not know, and that it does not."""
        found = super().told(asked, deadline)
        if len(found) > 1:
            self.last = tuple(found)
        return list(self.last)


def main() -> None:
    """Run it in the place of `pipeline.observe.exporter:main`."""
    exporter.run(Remembers)
