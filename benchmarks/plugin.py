"""What the pytest plugin costs a test run that has nothing to do with it.

One test that does nothing, run by pytest with the installed plugin and without it (``-p no:onecharge``), in turn. All
runs are in one process that has imported pytest, and forgets the plugin before each: a process for each would use half
a second, and that is less steady than what is to be found. Time is the processor's: what else the machine does is no
part of it.

without_ms, with_ms   medians
plugin_ms             of the differences within each pair, the median
plugin_ms_error       its standard error, were the differences normal
"""

from __future__ import annotations

import compileall
import contextlib
import io
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pytest

import chaos
from benchmarks.report import arguments, report

TEST = "def test_nothing():\n    pass\n"


def processor_ms(directory: Path, *options: str) -> float:
    """Of one run, in user and kernel mode."""
    for name in [name for name in sys.modules if name.partition(".")[0] in {"chaos", "test_nothing"}]:
        del sys.modules[name]
    began = time.process_time_ns()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        ended = pytest.main(["-q", "-p", "no:cacheprovider", f"--rootdir={directory}", *options, str(directory)])
    took = (time.process_time_ns() - began) / 1e6
    if ended != pytest.ExitCode.OK or ("chaos.plugin" in sys.modules) == bool(options):
        sys.exit(f"This was no run with the plugin, or without it where that was asked for:\n{said.getvalue()}")
    return took


def pair(directory: Path, *, with_it_first: bool) -> tuple[float, float]:
    """Of a run without the plugin, and of one with it: who comes second has it easier, or harder."""
    if with_it_first:
        with_it = processor_ms(directory)
        return processor_ms(directory, "-p", "no:onecharge"), with_it
    return processor_ms(directory, "-p", "no:onecharge"), processor_ms(directory)


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=200, help="of runs (default: 200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="plugin-") as name:
        directory = Path(name)
        (directory / "test_nothing.py").write_text(TEST, encoding="utf-8")
        for file in ("__init__.py", "plugin.py"):  # as pip does when it installs: it is no part of a run
            compileall.compile_file(Path(chaos.__file__).with_name(file), quiet=1)
        processor_ms(directory)
        pairs = [pair(directory, with_it_first=bool(number % 2)) for number in range(options.pairs)]
    without, with_it = zip(*pairs, strict=True)
    differences = [after - before for before, after in pairs]
    figures: dict[str, float] = {
        "pairs": len(pairs),
        "without_ms": statistics.median(without),
        "with_ms": statistics.median(with_it),
        "plugin_ms": statistics.median(differences),
        "plugin_ms_error": 1.25 * statistics.stdev(differences) / len(pairs) ** 0.5,  # of a median
    }
    report(figures, options.json)


if __name__ == "__main__":
    main()
