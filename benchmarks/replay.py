"""What a user does with a seeded bug: explore, run the printed line again in a new process, mend the bug, run it again.

Each bug is a `shop.py` in a directory of its own, explored by the command line where a sweep of it has to look, and
each line is carried out by a shell as it was printed. Mended, `shop.py` has the bug's brother.

<twin>_replayed     violations in ten runs of the printed line
<twin>_mended       1 if the line says FIXED once the bug is mended
<twin>_gone         1 if it says that the mended system has no such point
<twin>_unreached    1 if it says that each run was right, but in none of them was every fault come to
<twin>_faults       in the smallest schedule
<twin>_explained_s  from the violation to the end: ten runs, up to 60 s to make it smaller, ten runs of the smallest
replayed            how many of the twins violated in nine of the ten runs at least
mended, …           how many of them said so

for_some_orders_…   the same for a bug that shows in 60 % of the runs; it is no part of these sums

What is printed of each is the line.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from benchmarks.report import arguments, report
from tests.twins.systems import FOR_SOME_ORDERS, TWINS, TWO_FAULT_TWINS, Twin

ROOT = Path(__file__).parent.parent
ALL = {**TWINS, **TWO_FAULT_TWINS, "for_some_orders": FOR_SOME_ORDERS}
SHOP = "from benchmarks.replay import ALL\n\nsystem = ALL[{name!r}].{what}\n"
SECONDS, ENOUGH = 180, 9
HOLDS, VIOLATED, NO_SUCH_POINT, UNKNOWN = 0, 1, 2, 3
ENDS = ("mended", "gone", "unreached")


def shell(line: str, directory: Path, *expected: int) -> str:
    """What a command line prints.

    Raises:
        RuntimeError: its exit code is none of these.
    """
    env = {**os.environ, "PATH": f"{sysconfig.get_path('scripts')}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(line, shell=True, cwd=directory, env=env, text=True, capture_output=True, check=False)  # noqa: S602 - that is what a user does with it
    if done.returncode not in expected:
        raise RuntimeError(f"{line}\nexit code {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-2000:]}")
    return done.stdout + done.stderr


def found(pattern: str, text: str) -> str:
    """What is at the one place in the text."""
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise RuntimeError(f"nothing like {pattern!r} in\n{text[-8000:]}")
    return match[1]


def journey(name: str, twin: Twin, directory: Path) -> dict[str, float]:
    """Explore, replay, mend, replay."""
    shop = directory / "shop.py"
    shop.write_text(SHOP.format(name=name, what="system"), encoding="utf-8")
    faults = ["--faults", *twin.faults] if twin.faults else []
    explore = ["onecharge", "explore", "shop:system", "--seconds", str(SECONDS), "--only", *twin.only, *faults]
    text = shell(shlex.join(explore), directory, VIOLATED)
    line, smallest = found(r"^ +replay +(.*)$", text), found(r"^ +smallest +(.*): violated in", text)
    print(f"{name}: {line}\n  {found(r'(violated in [0-9]+ of [0-9]+ runs)', text)}", flush=True)
    again = shell(line, directory, VIOLATED)
    shop.write_text(SHOP.format(name=name, what="brother"), encoding="utf-8")
    mended = shell(line, directory, HOLDS, NO_SUCH_POINT, UNKNOWN)
    ends = (
        f"FIXED: {smallest} holds in 10 of 10 runs" in mended,
        "onecharge: no point" in mended,
        "10 holds" in mended and "was not carried out in full in each of 10 runs" in mended,
    )
    if not any(ends):
        raise RuntimeError(f"{line}\nmended, it ends otherwise:\n{mended[-8000:]}")
    figures = {
        "replayed": float(found(r"violated in ([0-9]+) of 10 runs", again)),
        **dict(zip(ENDS, map(float, ends), strict=True)),
        "faults": float(smallest != "no fault" and len(smallest.split("; "))),
        "explained_s": float(found(r"explained +in ([0-9.]+) s", text)),
    }
    print(f"  {figures}", flush=True)
    return {f"{name}_{what}": value for what, value in figures.items()}


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--only", nargs="*", choices=list(ALL), default=list(ALL), help="these twins (default: all)")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    failed = 0
    for name in options.only:
        with tempfile.TemporaryDirectory(prefix="replay-") as directory:
            try:
                figures |= journey(name, ALL[name], Path(directory))
            except RuntimeError as error:
                print(f"{name}: {error}", file=sys.stderr, flush=True)
                figures |= dict.fromkeys((f"{name}_replayed", *(f"{name}_{what}" for what in ENDS)), 0)
                failed += 1
    sure = [name for name in options.only if name != "for_some_orders"]
    figures["twins"] = len(sure)
    figures["replayed"] = sum(figures[f"{name}_replayed"] >= ENOUGH for name in sure)
    for what in ENDS:
        figures[what] = sum(figures[f"{name}_{what}"] for name in sure)
    report(figures, options.json)
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
