"""What the pytest plugin costs a test run that has nothing to do with it.

One test that does nothing, run by pytest with the installed plugin and without it (``-p no:onecharge``), in turn. Time
is the processor's, of the whole process: what else the machine does is no part of it.

without_ms, with_ms   medians
plugin_ms             of the differences within each pair, the median
"""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.report import arguments, report

TEST = "def test_nothing():\n    pass\n"


def processor_ms(directory: Path, *options: str) -> float:
    """Of one run, in user and kernel mode."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, str(directory)]
    subprocess.run(argv, cwd=directory, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return 1000 * (after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime)


def pair(directory: Path, *, with_it_first: bool) -> tuple[float, float]:
    """Of a run without the plugin, and of one with it: who comes second has it easier, or harder."""
    if with_it_first:
        with_it = processor_ms(directory)
        return processor_ms(directory, "-p", "no:onecharge"), with_it
    return processor_ms(directory, "-p", "no:onecharge"), processor_ms(directory)


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=40, help="of runs (default: 40)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plugin-") as name:
        directory = Path(name)
        (directory / "test_nothing.py").write_text(TEST, encoding="utf-8")
        processor_ms(directory)  # what is compiled once is no part of it
        pairs = [pair(directory, with_it_first=bool(number % 2)) for number in range(options.pairs)]
    without, with_it = zip(*pairs, strict=True)
    figures: dict[str, float] = {
        "pairs": len(pairs),
        "without_ms": statistics.median(without),
        "with_ms": statistics.median(with_it),
        "plugin_ms": statistics.median(after - before for before, after in pairs),
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
