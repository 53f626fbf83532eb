"""How soon `python -m pipeline up` is of use, and what it leaves behind; with the servers' programs in the cache.

usable_s_max, _median     from its start until the page has been served with its form
shown_s_median            from its start until an order was placed by that form, and the page shows it
confirmed_s_median        from its start until that order is confirmed, on the page
ended_s_max               from Ctrl-C until it has ended
left                      processes, ports and directories that were there after that, in all rounds; 0
"""

from __future__ import annotations

import html
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import httpx
import psutil

from benchmarks.leftovers import VARIABLE, Trail
from benchmarks.report import arguments, report
from chaos.waiting import Deadline, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

PATIENCE_S = 60.0
ADDRESS = re.compile(r"(?m)^  page +(http\S+)$")
FIELDS = {
    "key": re.compile(r'name="key" value="([^"]+)"'),
    "offer": re.compile(r'<option value="([^"]+)"'),
    "quantity": re.compile(r'name="quantity"[^>]* value="([^"]+)"'),
}
LOOK = re.compile(r'class="card (\w+)"')
T = TypeVar("T")


class Round(NamedTuple):
    """What one start took, in seconds, and what it left."""

    usable_s: float
    shown_s: float
    confirmed_s: float
    ended_s: float
    left: int


def main() -> None:
    """Measure, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="so many starts (default: 5)")
    options = parser.parse_args()
    rounds = []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="up-") as directory:
            rounds.append(once(Path(directory)))
        print(" ".join(f"{name} {value:.3g}" for name, value in rounds[-1]._asdict().items()), flush=True)
    print()
    figures = {
        "usable_s_max": max(one.usable_s for one in rounds),
        "usable_s_median": statistics.median(one.usable_s for one in rounds),
        "shown_s_median": statistics.median(one.shown_s for one in rounds),
        "confirmed_s_median": statistics.median(one.confirmed_s for one in rounds),
        "ended_s_max": max(one.ended_s for one in rounds),
        "left": float(sum(one.left for one in rounds)),
    }
    report(figures, options.json)


def once(directory: Path) -> Round:
    """Start it, order something, and end it."""
    trail, log = Trail(), directory / "log"
    temporary = directory / "tmp"
    temporary.mkdir()
    directory.chmod(0o711)  # Postgres does not run as root, and has its data in there
    env = os.environ | {VARIABLE: trail.mark, "TMPDIR": str(temporary)}
    began = time.monotonic()
    with (
        log.open("wb") as file,
        subprocess.Popen([sys.executable, "-m", "pipeline", "up"], env=env, stdout=file, stderr=file) as process,
        httpx.Client(timeout=5, follow_redirects=True) as browser,
    ):
        try:
            usable_s, shown_s, confirmed_s = (time.monotonic() - began for _ in steps(browser, log))
            trail.follow(psutil.Process(process.pid))
        finally:
            process.send_signal(signal.SIGINT)
        interrupted = time.monotonic()
        if process.wait(PATIENCE_S) != 0:
            sys.exit(log.read_text(encoding="utf-8"))
        ended_s = time.monotonic() - interrupted
    left = [*trail.alive(), *trail.open_ports(), *trail.left_directories(), *temporary.iterdir()]
    return Round(usable_s, shown_s, confirmed_s, ended_s, len(left))


def steps(browser: httpx.Client, log: Path) -> Iterator[None]:
    """Go on when the page is there, when it shows the order that is placed by its form, and when that is confirmed."""
    [address] = awaited("the page's address", lambda: ADDRESS.findall(log.read_text(encoding="utf-8")), log)
    fields = awaited("the page", lambda: form(browser, address), log)
    yield
    browser.post(f"{address}orders", data=fields).raise_for_status()
    for looks in ({"pending", "confirmed"}, {"confirmed"}):
        awaited("the order to be " + " or ".join(looks), partial(shown, browser, address, looks), log)
        yield


def awaited(what: str, look: Callable[[], T], log: Path) -> T:
    """What it finds, as soon as that is something."""
    return wait_until(what, look, Deadline(PATIENCE_S), retry_on=(httpx.TransportError,), logs=[log])


def shown(browser: httpx.Client, address: str, looks: Collection[str]) -> bool:
    """Whether the page has an order that looks so."""
    return any(look in looks for look in LOOK.findall(browser.get(address).text))


def form(browser: httpx.Client, address: str) -> dict[str, str]:
    """What a customer sends who changes nothing in the form."""
    page = browser.get(address).text
    return {name: html.unescape(found[1]) for name, field in FIELDS.items() if (found := field.search(page))}


if __name__ == "__main__":
    main()
