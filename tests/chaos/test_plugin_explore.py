"""Tests that are explored, as their authors meet them: in runs of pytest of their own, on a system without servers."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.report import data
from tests.chaos import small_shop
from tests.chaos.owner import MARK, marked, until
from tests.chaos.test_cli import CHARGED, TAKEN, environment, tried
from tests.chaos.test_plugin import ended_in

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

CONFTEST = """
import pytest, shop

@pytest.fixture(scope="session")
def system(onecharge):
    with shop.shop(onecharge) as system:
        yield system

@pytest.fixture(scope="session")
def lanes(onecharge):
    with onecharge.lanes(shop.shop) as lanes:
        yield lanes
"""
EXPLORED = f"""
import chaos, hypothesis

@chaos.explore(seconds=20, max_faults=1)
@hypothesis.example(schedule="{TAKEN}; worker~1/shop.taken#1:crash-before")
def test_any(system, schedule):
    system.drill(schedule).require_holds()
"""


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    """A project with the shop, and fixtures for it."""
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(shop=Path(small_shop.__file__).read_text())
    return pytester


def properties(shop: pytest.Pytester, name: str) -> list[str]:
    """The values of a property in the JUnit file, of all tests."""
    root = ET.parse(shop.path / "junit.xml").getroot()  # noqa: S314 - our own file
    return [one.attrib["value"] for one in root.iter("property") if one.attrib["name"] == name]


def test_holds(run: Run, shop: pytest.Pytester) -> None:
    """A correct system passes, beside Hypothesis's own plugin; what is pinned was tried first."""
    ended = run("--junit-xml=junit.xml", autoload=True, test_it=EXPLORED)
    ended.assert_outcomes(passed=1)
    ended.stdout.fnmatch_lines(["test_it.py::test_any", "holds: exploration of schedules of up to 1 faults, *"])
    assert properties(shop, "onecharge") == ["holds: exploration of schedules of up to 1 faults"]
    [page] = map(Path, properties(shop, "onecharge_timeline"))
    assert page.read_text().startswith("<!doctype html>")
    report = data.read(page.with_name("report.json"))
    assert (report.kind, report.status) == ("explore", "holds")
    assert report.outcomes[0].schedule == f"{TAKEN}; worker~1/shop.taken#1:crash-before"
    assert len(report.outcomes) == 4


def test_budget(run: Run, shop: pytest.Pytester) -> None:
    """The budget of the command line counts, not the test's; what was not tried within it proves nothing."""
    source = EXPLORED.replace("@hypothesis.example", "#")
    ended = run("--onecharge-budget=0.001", test_it=source)
    ended.assert_outcomes(failed=1)
    ended.stdout.fnmatch_lines(["  unknown     the budget of 0.001 s was spent before a schedule was tried"])
    assert data.read(shop.path / "artifacts/reports/test_it.py-test_any/report.json").status == "unknown"


def test_found_replayed_and_fixed(run: Run, shop: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug fails the test with its story, the smallest schedule, and the line that reproduces it until it is fixed."""
    monkeypatch.setenv("BUG", "twice")
    ended = run("--junit-xml=junit.xml", test_it=EXPLORED)
    ended.assert_outcomes(failed=1)
    assert properties(shop, "onecharge_counterexample") == [f"{CHARGED}: violated in 10 of 10 runs"]
    ended.stdout.fnmatch_lines(
        [
            "violated: exploration of schedules of up to 1 faults, *",
            f"  smallest    {CHARGED}: violated in 10 of 10 runs",
            f"  replay      pytest test_it.py::test_any --onecharge-replay='{CHARGED}'",
            "*violated  one effect per key: * has 2 effects (records #*",
            f"  timeline  {shop.path}/artifacts/reports/test_it.py-test_any/timeline.html",
        ]
    )
    replay = re.search(r"^  replay +pytest (.*)$", ended.stdout.str(), re.MULTILINE)
    assert replay is not None

    again = run(*shlex.split(replay[1]))
    again.assert_outcomes(failed=1)
    again.stdout.fnmatch_lines([f"  smallest    {CHARGED}: violated in 10 of 10 runs"])

    monkeypatch.delenv("BUG")
    fixed = run(*shlex.split(replay[1]))
    fixed.assert_outcomes(passed=1)
    fixed.stdout.fnmatch_lines([f"  note        FIXED: {CHARGED} holds in 10 of 10 runs"])


INSIDE = """
def test_inside(GROUND):
    found = GROUND.explore(seconds=20, max_faults=2, seed=1)
    assert found.status == "violated"
    assert GROUND.drill(str(found.counterexample.smallest.schedule)).status == "violated"
"""


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("ground", ["system", "lanes"])
def test_inside_a_test(run: Run, monkeypatch: pytest.MonkeyPatch, ground: str) -> None:
    """A system, or lanes of it, can be explored in the middle of a test, which judges what was found."""
    monkeypatch.setenv("BUG", "twice")
    ended = run(test_it=INSIDE.replace("GROUND", ground))
    ended.assert_outcomes(passed=1)
    ended.stdout.fnmatch_lines(["violated: exploration of schedules of up to 2 faults, *", f"violated: {CHARGED}"])


@pytest.mark.usefixtures("shop")
def test_kept_in_ci(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Hypothesis by itself keeps nothing, because ``CI`` is set, a counterexample is kept, and tried again."""
    monkeypatch.setenv("BUG", "twice")
    monkeypatch.setenv("CI", "true")
    run(test_it=EXPLORED).assert_outcomes(failed=1)
    monkeypatch.delenv("BUG")
    fixed = run(test_it=EXPLORED)
    fixed.assert_outcomes(passed=1)
    fixed.stdout.fnmatch_lines([f"  note        FIXED: {CHARGED} holds in 10 of 10 runs"])


WITHOUT = """
import sys
sys.modules["hypothesis"] = None  # as if it were not installed
import chaos

@chaos.explore()
def test_any(system, schedule):
    system.drill(schedule).require_holds()

def test_inside(system):
    system.explore()

def test_one(system):
    system.drill("worker/shop.taken:crash-before").require_holds()
"""


@pytest.mark.usefixtures("shop")
def test_without_hypothesis(run: Run) -> None:
    """Where the extra is not installed, explored tests are skipped, with what to do, and no others."""
    ended = run("-rs", test_it=WITHOUT)
    ended.assert_outcomes(skipped=2, passed=1)
    ended.stdout.fnmatch_lines(
        ["SKIPPED*: hypothesis is missing: looked for *. Install it with `pip install 'onecharge?explore?'`."]
    )
    run("--onecharge-require", test_it=WITHOUT).assert_outcomes(failed=2, passed=1)


OWN = """
import chaos, pytest
explore = chaos.explore(seconds=20, max_faults=1, only=["worker/shop.charging", "worker/shop.taken"])

@explore
def test_assert(GROUND, schedule):
    GROUND.drill(schedule).require_holds()
    assert "charging" not in str(schedule), "not in front of the charge"

@explore
def test_fail(schedule, GROUND, request):
    GROUND.drill(schedule)
    if "charging" in str(schedule):
        pytest.fail(f"{request.node.name} says no")

@explore
def test_idle(GROUND, schedule):
    pass

@explore
def test_nothing_to_break(tmp_path, schedule):
    pass
"""


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("ground", ["system", "lanes"])
def test_own_judgement(run: Run, ground: str) -> None:
    """What a test asserts itself is an invariant; a test that breaks nothing is told so in a sentence."""
    ended = run("--onecharge-lanes=2", test_it=OWN.replace("GROUND", ground))
    ended.assert_outcomes(failed=4)
    for told in (
        "violated  the test:  AssertionError: not in front of the charge",
        "violated  the test:  Failed: test_fail says no",
        "smallest    worker~0/shop.charging#1:crash-before: violated in 10 of 10 runs",
        "ChaosError: test_idle has not drilled the schedule it was given",
        "ChaosError: none of the test's fixtures is a System or Lanes, what is to be broken? It has tmp_path",
    ):
        assert told in ended.stdout.str()


def test_without_schedule(run: Run) -> None:
    """A test without the parameter is refused when it is collected."""
    ended = run(test_it="import chaos\n@chaos.explore()\ndef test_it(system): pass")
    ended.assert_outcomes(errors=1)
    ended.stdout.fnmatch_lines(["E*ChaosError: test_it is explored and has no parameter 'schedule'"])


SWEPT = """
import chaos

def test_sweep(lanes):
    assert lanes.count == 2
    sweep = lanes.sweep(faults=["crash-before"])
    sweep.require_holds()
    assert 0 < len(sweep.verdicts) < len(sweep.selected)

@chaos.explore(max_faults=1)
def test_any(lanes, schedule):
    lanes.drill(schedule).require_holds()
"""


def test_lanes_and_shards(run: Run, shop: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many lanes as are asked for; a sweep carries out its part only, of which the report says so."""
    monkeypatch.setenv("STEPS", "4")
    ended = run("--onecharge-lanes=2", "--onecharge-shard=1/2", test_it=SWEPT)
    ended.assert_outcomes(passed=2)
    ended.stdout.fnmatch_lines(["holds: sweep of 7 points by 1 faults, shard 1/2, *", "holds: exploration of *"])
    assert data.read(shop.path / "artifacts/reports/test_it.py-test_sweep/report.json").shard == "1/2"
    assert len(list((shop.path / "artifacts" / "lanes").iterdir())) == 2


@pytest.mark.usefixtures("shop")
def test_xdist(run: Run) -> None:
    """Under xdist each worker explores with a system of its own, and keeps its reports apart."""
    again = EXPLORED.replace("test_any", "test_other").partition("@")[2]
    ended = run("-p", "xdist", "-n", "2", test_it=f"{EXPLORED}\n@{again}")
    ended.assert_outcomes(passed=2)
    assert ended.stdout.str().count("holds: exploration of schedules of up to 1 faults") == 2
    reports = (ended_in(ended) / "artifacts").glob("gw*/reports/*/report.json")
    assert sorted(path.parent.name for path in reports) == ["test_it.py-test_any", "test_it.py-test_other"]


@pytest.mark.usefixtures("shop")
def test_switched_off(run: Run) -> None:
    """With -p no:onecharge there is no fixture; a test with a session of its own is explored all the same."""
    own = EXPLORED + (
        "import pathlib, pytest, shop\n"
        "@pytest.fixture(params=['own'])\n"
        "def system(request):\n"
        "    with chaos.Session(pathlib.Path(request.param)) as session, shop.shop(session) as system: yield system\n"
    )
    ended = run("-p", "no:onecharge", plugin=False, test_it=EXPLORED, test_own=own)
    ended.assert_outcomes(passed=1, errors=1)
    ended.stdout.fnmatch_lines(["*fixture 'onecharge' not found"])


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("--onecharge-lanes=0", "--onecharge-lanes=0: expected at least one"),
        ("--onecharge-lanes=two", "error: argument --onecharge-lanes: invalid int value: 'two'"),
        ("--onecharge-shard=3/2", "'3/2' is no shard: expected such as 2/8, the second of eight"),
        ("--onecharge-shard=", "'' is no shard: expected such as 2/8, the second of eight"),
        ("--onecharge-services=podman", "error: argument --onecharge-services: invalid choice: 'podman'*"),
        ("--onecharge-image=kafka", "'kafka' names no image: expected SERVER=IMAGE, such as kafka=apache/kafka:*"),
        ("--onecharge-image=redis=7", "no server with an image 'redis': there is kafka, postgres, toxiproxy."),
        ("--onecharge-budget=0", "--onecharge-budget=0: expected seconds, more than none"),
        ("--onecharge-budget=nan", "--onecharge-budget=nan: expected seconds, more than none"),
        ("--onecharge-replay=nonsense", "'nonsense' is no fault: expected worker?~incarnation?/site*"),
        ("--onecharge-replay=w/s:crash-befor", "no fault 'crash-befor': did you mean 'crash-before'?"),
    ],
)
def test_option_that_means_nothing(run: Run, option: str, told: str) -> None:
    """A value that means nothing is refused in one line before any test runs."""
    ended = run(option, test_it="def test_it(): pass")
    assert ended.ret == pytest.ExitCode.USAGE_ERROR
    ended.stderr.fnmatch_lines([f"*{told}"])
    assert "Traceback" not in ended.stderr.str()
    ended.stdout.no_fnmatch_line("*passed*")


def test_interrupted(shop: pytest.Pytester) -> None:
    """Ctrl-C half way leaves no process behind, and tells what was tried until then."""
    mark = f"{MARK}=interrupted-{shop.path}"
    name, _, value = mark.partition("=")
    shop.makepyfile(test_it=EXPLORED)
    argv = ["env", "--default-signal=INT", sys.executable, "-m", "pytest", "-p", "onecharge", "test_it.py"]
    env = {**environment(STEPS="40", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1"), name: value}
    env.pop("PYTEST_ADDOPTS", None)
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        until(lambda: tried(shop.path) > 3)
        os.killpg(process.pid, signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    assert process.returncode == pytest.ExitCode.INTERRUPTED, out
    assert "unknown: exploration of schedules of up to 1 faults" in out
    assert "it was interrupted" in out
    until(lambda: not marked(mark))
