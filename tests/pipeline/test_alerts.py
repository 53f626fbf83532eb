"""The alert rules: Prometheus takes them, each fires when it should, and they are about gauges that there are."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from itertools import product
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

import pipeline
from chaos import MissingPart
from pipeline.observe.gauges import GAUGES, PREFIX

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.observe.gauges import Gauge

RULES = Path(pipeline.__file__).with_name("observe") / "alerts.yml"
TESTS = Path(__file__).with_name("alerts.yml")


@pytest.fixture(scope="module")
def promtool() -> str:
    """Prometheus' own tool. Where there is none the tests are skipped, and fail in CI."""
    found = shutil.which("promtool")
    if found is None:
        missing = MissingPart("promtool", looked_for=["promtool"], remedy="Install it: apt-get install prometheus.")
        if os.environ.get("CI", "") in {"", "0", "false"}:
            pytest.skip(str(missing))
        raise missing
    return found


@pytest.mark.parametrize("arguments", [["check", "rules", RULES], ["test", "rules", TESTS]], ids=["check", "test"])
def test_the_rules(promtool: str, arguments: list[str | Path]) -> None:
    """Prometheus takes them, and in `alerts.yml` beside this each fires for its cause and is silent without one."""
    ended = subprocess.run([promtool, *arguments], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_they_are_about() -> None:
    """Each is about gauges that are declared, and each of the four signals has alerts."""
    text = RULES.read_text(encoding="utf-8")
    named = set(re.findall(rf"\b{PREFIX}(\w+)", text))
    assert named <= {*GAUGES}
    signals = set(re.findall(r"signal: ([\w -]+)}", text))
    assert signals == {gauge.signal for gauge in GAUGES.values() if gauge.signal} | {"none"}


def test_each_is_tested() -> None:
    """No rule is without a test that it fires."""
    rules = re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))
    tested = set(re.findall(r'alertname="(\w+)"', TESTS.read_text(encoding="utf-8")))
    assert set(rules) == tested
    assert len(rules) == len(tested)


class Cause(NamedTuple):
    """A comparison in a rule: the gauge, the value of its last label if it says one, and what it is held against."""

    gauge: str
    only: str
    how: str
    value: float

    def holds(self, value: float) -> bool:
        """Whether this would fire the alert."""
        return {">": value > self.value, "<": value < self.value, "==": value == self.value}[self.how]


def causes() -> Iterator[Cause]:
    """All there are, and nothing else is in the rules but that nobody answers at all."""
    for alert, expression in re.findall(r"- alert: (\w+)\n +expr: (.+)\n", RULES.read_text(encoding="utf-8")):
        for part in expression.split(" or ") if alert != "NobodyObserves" else []:
            said = re.fullmatch(rf'{PREFIX}(\w+)(?:{{(\w+)="([^"]+)"}})? ([<>]|==) ([\d.]+)', part.strip())
            assert said, f"{alert}: {part}"
            gauge, label, only, how, value = said.groups()
            assert label in {None, *GAUGES[gauge].labels[-1:]}
            yield Cause(gauge, only or "", how, float(value))


def labelled(gauge: Gauge) -> list[tuple[str, ...]]:
    """Labels that it may have: each value that is said of its last, and another."""
    return [(*gauge.labels[:-1], last) for last in (*gauge.only, "another")] if gauge.labels else [()]


def values() -> set[float]:
    """Each that something is held against, and what is beside it."""
    bounds = {cause.value for cause in causes()} | {one.above for one in GAUGES.values()}
    bounds |= {one.below for one in GAUGES.values()}
    return {near for bound in bounds if isfinite(bound) for near in (bound, bound - 0.001, bound + 0.001)}


def test_what_is_trouble() -> None:
    """What `gauges` and the operators' page call trouble is what fires an alert: of each gauge, labels and value."""
    rules = list(causes())
    assert {cause.only for cause in rules} - {""} <= {only for gauge in GAUGES.values() for only in gauge.only}
    for name, gauge in GAUGES.items():
        about = [cause for cause in rules if cause.gauge == name]
        whole = bool(about) and about[0].how == "=="  # one of few values, that are whole numbers
        for labels, value in product(labelled(gauge), values()):
            fires = any(cause.holds(value) for cause in about if not cause.only or cause.only == labels[-1])
            if not whole or value in {0, 1}:
                assert gauge.is_trouble(value, labels) == fires, f"{name} {labels} {value}"


def test_each_is_in_the_runbook() -> None:
    """Each alert has a section by its name, and each section is about an alert."""
    text = (Path(__file__).parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?m)^## (\w+)$", text)
    assert sections == ["Triage", "Verification", *re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))]
