"""`python -m pipeline gauges [NAME ...]`: what the gauges say now, and which of it is trouble.

Names are beginnings, such as `consumer`. Exit code 0: none of them is trouble; 1: some are, or a name has no gauge;
with `--wait` that is only said when so many seconds have passed. For people, and for the runbook, which is executed.
"""

from __future__ import annotations

import argparse
import sys
import time
import urllib.request
from typing import TYPE_CHECKING, NamedTuple

from pipeline.observe.gauges import GAUGES, PREFIX
from pipeline.settings import GaugesSettings, load

if TYPE_CHECKING:
    from collections.abc import Sequence

TIMEOUT_S, PAUSE_S = 5.0, 0.5
UNITS = {"seconds": "s", "bytes": "bytes"}


class Shown(NamedTuple):
    """A gauge's value, as people read it."""

    hop: str
    name: str
    of: str
    value: str
    about: str
    trouble: bool


def shown(text: str) -> list[Shown]:
    """What an answer in Prometheus' format says of the gauges, in the order in which they are declared."""
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - a fifth of a second

    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    told = [(one.name.removeprefix(PREFIX), one) for one in samples]
    labelled = [
        (name, tuple(one.labels[label] for label in GAUGES[name].labels), one.value)
        for name, one in told
        if name in GAUGES
    ]
    order = list(GAUGES)
    found = []
    for name, labels, number in sorted(labelled, key=lambda one: (order.index(one[0]), one[1])):
        gauge, (rest, _, last) = GAUGES[name], name.rpartition("_")
        words = (rest if last in UNITS else name).replace("_", " ")
        value = f"{number:,.1f}".removesuffix(".0") + f" {UNITS.get(last, '')}".rstrip()
        found.append(Shown(gauge.hop, words, ", ".join(labels), value, gauge.about, gauge.is_trouble(number, labels)))
    return found


def look(url: str, names: Sequence[str]) -> list[Shown]:
    """Those that begin so.

    Raises:
        OSError: nobody answers.
    """
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 - the setting says http
        found = shown(answer.read().decode())
    return [one for one in found if not names or any(begins(one, name) for name in names)]


def begins(one: Shown, name: str) -> bool:
    """Whether its name begins so, written as a metric's or as people's."""
    return one.name.startswith(name.replace("_", " "))


def main(arguments: Sequence[str]) -> None:
    """Look, and say."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline gauges", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only those that begin so")
    parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for the trouble to be over")
    asked = parser.parse_args(arguments)
    url = load(GaugesSettings).gauges_url
    deadline = time.monotonic() + asked.wait
    while True:
        try:
            found, amiss = look(url, asked.names), ""
        except OSError as why:
            found, amiss = [], f"nobody answers at {url}: {why}"
        unknown = [name for name in asked.names if not any(begins(one, name) for one in found)]
        if not amiss and (unknown or not found):
            amiss = f"no gauge at {url} begins with {' or '.join(unknown)}" if unknown else f"no gauge at {url}"
        trouble = [one for one in found if one.trouble]
        if not (trouble or amiss) or time.monotonic() >= deadline:
            break
        time.sleep(PAUSE_S)
    for one in sorted(found, key=lambda one: not one.trouble):
        print(f"{'trouble' if one.trouble else '':<8}{one.hop:<11}{one.name} {one.of:<24}{one.value}")  # noqa: T201
    if amiss:
        print(f"pipeline gauges: {amiss}", file=sys.stderr)  # noqa: T201
    sys.exit(bool(trouble or amiss))
