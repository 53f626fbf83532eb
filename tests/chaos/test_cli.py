"""The command line as its users meet it: in processes of its own, on a system that needs no server."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from chaos.cli import main
from chaos.report import data
from tests.chaos import small_shop
from tests.chaos.owner import MARK, ROOT, marked, until

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS = ("sweep", "explore", "replay", "report")
HOLDS, VIOLATED, USAGE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 130
ARGV = (sys.executable, "-P", "-m", "chaos.cli")  # -P: like the console script, which has another first place to look
TAKEN, CHARGED = (f"worker~0/shop.{name}#1:crash-before" for name in ("taken", "charged"))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with `shop.py`, which is the current one."""
    shutil.copy(small_shop.__file__, tmp_path / "shop.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*args: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in the current directory."""
    return subprocess.run([*ARGV, *args], env=environment(**env), capture_output=True, text=True, check=False)


def environment(**env: str) -> dict[str, str]:
    """Ours, with `env`, and with this checkout's library."""
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), **env}


def replay_line(told: subprocess.CompletedProcess[str]) -> list[str]:
    """The words of the line that a story says will replay it, without the program's name."""
    match = re.search(r"^  replay +onecharge (.*)$", told.stdout, re.MULTILINE)
    assert match is not None, told
    return shlex.split(match[1])


# -- help --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [(), *((one,) for one in COMMANDS)])
def test_help(command: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    """Each command explains itself, and what its exit codes mean."""
    with pytest.raises(SystemExit) as ended:
        main([*command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == HOLDS
    assert "0 holds, 1 violated, 3 unknown, 2 the command is wrong or a part is missing, 130 interrupted" in shown
    assert all(one in shown for one in command or COMMANDS)


def test_help_is_light() -> None:
    """Who only asks for help does not wait for what drills need."""
    script = "import sys, chaos.cli\ntry: chaos.cli.main(['sweep', '-h'])\nfinally: print('loaded', *sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True, check=True)
    loaded = set(told.stdout.rpartition("loaded")[2].split())
    assert {name for name in loaded if name.startswith("chaos")} == {"chaos", "chaos.cli", "chaos.errors"}
    assert not {"hypothesis", "psycopg", "msgspec", "confluent_kafka", "uvloop"} & loaded


# -- what is found, and replayed ---------------------------------------------------------------------------------------


def test_found_replayed_and_fixed(project: Path) -> None:
    """What an exploration finds is one line, which reproduces it elsewhere, and says so when the bug is gone."""
    found = run("explore", "shop:shop", "--seconds", "20", "--max-faults", "2", BUG="twice")
    assert found.returncode == VIOLATED, found
    assert f"smallest    {CHARGED}: violated in 10 of 10 runs" in found.stdout
    assert replay_line(found) == ["replay", "shop:shop", CHARGED]
    report = data.read(project / "artifacts" / "report.json")
    assert (report.kind, report.system, report.status) == ("explore", "shop:shop", "violated")
    assert (report.outcomes[0].schedule, report.outcomes[0].again, report.outcomes[0].reproduced) == (CHARGED, 10, 10)
    assert CHARGED in (project / "artifacts" / "timeline.html").read_text()

    again = run(*replay_line(found), "--times", "3", "--output", "again", BUG="twice")
    assert again.returncode == VIOLATED, again
    assert "violated in 3 of 3 runs" in again.stdout
    assert "has 2 effects (records #" in again.stdout

    fixed = run("replay", "shop:shop", "@artifacts/report.json", "--times", "3", "--output", "fixed")
    assert fixed.returncode == HOLDS, fixed
    assert f"FIXED: {CHARGED} holds in 3 of 3 runs" in fixed.stdout

    other = run("explore", "shop:shop", "--output", "other", NAME="payment")
    assert (other.returncode, other.stdout) == (USAGE, "")
    assert "the database of examples is another system's" in line(other.stderr)
    assert "no worker 'worker': there is payment" in other.stderr


def test_a_bug_that_needs_no_fault(project: Path) -> None:
    """What every run shows is found, has a line that replays it and a page that has the line, and can be fixed."""
    found = run("explore", "shop:shop", BUG="always")
    assert found.returncode == VIOLATED, found
    assert "smallest    no fault: violated in 10 of 10 runs" in found.stdout
    assert replay_line(found) == ["replay", "shop:shop", ""]
    assert "onecharge replay shop:<wbr>shop &#x27;&#x27;" in (project / "artifacts" / "timeline.html").read_text()

    again = run(*replay_line(found), "--times", "2", "--output", "again", BUG="always")
    assert again.returncode == VIOLATED, again
    assert "violated in 2 of 2 runs" in again.stdout

    fixed = run("replay", "shop:shop", "@artifacts/report.json", "--times", "2", "--output", "fixed")
    assert fixed.returncode == HOLDS, fixed
    assert fixed.stdout.count("FIXED: no fault holds in 2 of 2 runs") == 1


def test_what_was_found_before_comes_first(project: Path) -> None:
    """A counterexample that still violates is found at once by the next exploration; one that holds is forgotten."""
    first = run("explore", "shop:shop", "--count", "9", "--lanes", "2", BUG="lost")
    assert (first.returncode, "was accepted and has no effect" in first.stdout) == (VIOLATED, True), first
    assert examples(project) == [b"worker~0/shop.charging#1:crash-before"]

    fixed = run("explore", "shop:shop", "--count", "1")
    assert fixed.returncode == HOLDS, fixed
    assert "FIXED: worker~0/shop.charging#1:crash-before holds in 10 of 10 runs" in fixed.stdout
    assert examples(project) == []


def examples(project: Path) -> list[bytes]:
    """The schedules in the database of examples."""
    files = (path for path in (project / ".hypothesis" / "examples").rglob("*") if path.is_file())
    return [text for path in files if (text := path.read_bytes()).startswith(b"worker")]


def test_baseline_is_written(project: Path) -> None:
    """A sweep that writes its baseline proves nothing yet, and its exit code says so."""
    told = run("sweep", "shop:shop", "--baseline", "points.txt", "--lanes", "2", "--faults", "crash-before")
    assert told.returncode == UNKNOWN, told
    assert "it was written. Look at it" in told.stdout
    assert (project / "points.txt").read_text().splitlines() == [
        f"worker~0/shop.{name}#1  crash-before" for name in ("charged", "charging", "taken")
    ]


def test_shards(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shards hold together, with the whole denominator; one alone does not, and one twice is refused."""
    for number in (1, 2):
        told = run("sweep", "shop:shop", "--shard", f"{number}/2", "--output", str(number), STEPS="3")
        assert told.returncode == HOLDS, told
    files = [str(project / str(number) / "report.json") for number in (1, 2)]
    assert main(["report", *files, "--output", "both"]) == HOLDS
    shown = capsys.readouterr().out
    assert "holds: sweep of shop:shop, 6 schedules\n" in shown
    merged = data.read(project / "both" / "report.json")
    assert {str(one.schedule) for one in merged.outcomes} == {f"{point}:crash-before" for point in merged.points}
    assert len(merged.points) == 6
    assert (project / "both" / "timeline.html").exists()

    assert main(["report", files[0], "--output", "one"]) == UNKNOWN
    assert "shards are missing: 2/2" in capsys.readouterr().out
    assert main(["report", files[0], files[0]]) == USAGE
    assert line(capsys.readouterr().err) == "onecharge: not the shards of one run: 1/2, 1/2"
    assert main(["report", "one/report.json", files[1]]) == HOLDS


def test_found_at_the_end(project: Path) -> None:
    """What is violated only when the lanes are left is violated, and is in the report."""
    told = run("replay", "shop:shop", TAKEN, "--times", "1", BUG="late")
    assert told.returncode == VIOLATED, told
    assert "has 2 effects" in told.stdout
    assert data.read(project / "artifacts" / "report.json").status == "violated"


# -- bad input ---------------------------------------------------------------------------------------------------------


def line(text: str) -> str:
    """The one line that `text` is."""
    assert text.count("\n") == 1, text
    return text.rstrip("\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["sweep", "nowhere:shop"], "'nowhere:shop': No module named 'nowhere' (looked in "),
        (["sweep", "shop:nothing"], "'shop:nothing': shop has no function 'nothing'"),
        (["sweep", "shop:not_a_function"], "'shop:not_a_function': shop has no function 'not_a_function'"),
        (["sweep", "shop"], "'shop' is no target: expected module:function; "),
        (["sweep", ":shop"], "':shop' is no target: expected module:function; "),
        (["sweep", "shop.py:shop"], "'shop.py:shop': No module named 'shop.py'"),
        (["sweep", "shop:shop", "--shard", "3/2"], "'3/2' is no shard: expected such as 2/8, the second of eight"),
        (["sweep", "shop:shop", "--depth", "3"], "argument --depth: invalid choice: "),
        (["sweep", "shop:shop", "--lanes", "0"], "argument --lanes: expected a number, 1 at least, and not '0'"),
        (["sweep", "shop:shop", "--lanes", "two"], "argument --lanes: expected a number, 1 at least, and not 'two'"),
        (["sweep", "shop:shop", "--faults", "crash-befor"], "did you mean 'crash-before'?"),
        (["sweep", "shop:shop", "--faults", "refuse=tea"], "refuse=tea"),
        (
            ["explore", "shop:shop", "--seconds", "0"],
            "argument --seconds: expected seconds, more than none, and not '0'",
        ),
        (["explore", "shop:shop", "--seconds", "nan"], "argument --seconds: expected seconds, more than none"),
        (["explore", "shop:shop", "--max-faults", "0"], "argument --max-faults: expected a number, 1 at least"),
        (["explore", "shop:shop", "--count", "0"], "argument --count: expected a number, 1 at least"),
        (["replay", "shop:shop", TAKEN, "--times", "0"], "argument --times: expected a number, 1 at least"),
        (["replay", "shop:shop", "nonsense"], "'nonsense' is no fault: expected worker[~incarnation]/site"),
        (["replay", "shop:shop", "@corrupt.json"], "corrupt.json is no report of onecharge: "),
        (["replay", "shop:shop", "@none.json"], "none.json is no report of onecharge: "),
        (["replay", "shop:shop", "@holds.json"], "holds.json has no violated schedule to run again"),
        (["report", "corrupt.json"], "corrupt.json is no report of onecharge: "),
        (["report", "bytes.json"], "bytes.json is no report of onecharge: "),
        (["report", "."], ". is no report of onecharge: "),
        (["report", "newer.json"], "newer.json has format 2; this version reads format 1"),
        (["report", "holds.json", "other.json"], "reports of different runs: one has system a:b, another c:d"),
        (["report"], "the following arguments are required: FILE"),
        (["sweep"], "the following arguments are required: TARGET"),
        ([], "the following arguments are required: COMMAND"),
        (["sweeep", "shop:shop"], "invalid choice: 'sweeep'"),
    ],
)
def test_bad_input(project: Path, capsys: pytest.CaptureFixture[str], args: list[str], told: str) -> None:
    """What cannot be carried out is refused before anything is started: one line that says why, and exit code 2."""
    (project / "corrupt.json").write_text('{"kind": "sweep"')
    (project / "bytes.json").write_bytes(b'{"kind": "\xff", "format": 1}')
    (project / "newer.json").write_text('{"format": 2, "what": "nobody knows yet"}')
    data.write(project / "holds.json", data.Report("explore", "a:b", "holds", 1.0, (data.Outcome(TAKEN, "holds"),)))
    data.write(project / "other.json", data.Report("explore", "c:d", "holds", 1.0, ()))

    assert code_of(args) == USAGE
    shown = capsys.readouterr()
    assert shown.out == ""
    assert line(shown.err).startswith("onecharge")
    assert told in shown.err
    assert not (project / "artifacts").exists()


def code_of(args: list[str]) -> object:
    """The exit code of the command line; what it imported from the current directory is forgotten."""
    path = list(sys.path)
    try:
        return main(args)
    except SystemExit as ended:
        return ended.code
    finally:
        sys.path[:] = path
        sys.modules.pop("shop", None)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["replay", "shop:shop", "wroker/shop.taken:crash-before"], "no worker 'wroker': did you mean 'worker'?"),
        (["replay", "shop:shop", "worker/shop.token:crash-before"], "did you mean 'worker~0/shop.taken#1'?"),
        (["sweep", "shop:shop", "--only", "worker/shop.token"], "did you mean 'worker/shop.taken'?"),
        (["sweep", "shop:shop", "--services", "docker", "--image", "kafak=1"], "'kafak': did you mean 'kafka'?"),
    ],
    ids=["worker", "point", "only", "image"],
)
@pytest.mark.usefixtures("project")
def test_name_that_the_system_does_not_know(capsys: pytest.CaptureFixture[str], args: list[str], told: str) -> None:
    """What only the running system can tell is wrong is told in one line as well, with the nearest name."""
    assert code_of(args) == USAGE
    assert told in line(capsys.readouterr().err)


def test_target_that_fails(project: Path) -> None:
    """A target that raises shows its traceback, and is not taken for a violation."""
    (project / "broken.py").write_text("def shop(session):\n    raise ZeroDivisionError('of the target')\n")
    told = run("sweep", "broken:shop")
    assert told.returncode == USAGE
    assert "Traceback" in told.stderr
    assert told.stderr.endswith("ZeroDivisionError: of the target\n")


@pytest.mark.usefixtures("project")
def test_without_hypothesis() -> None:
    """Where Hypothesis is not installed, exploring says how to have it."""
    script = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "hypothesis" else found(name, *more)
from chaos.cli import main
sys.exit(main(["explore", "shop:shop"]))
"""
    argv = [sys.executable, "-c", script]
    told = subprocess.run(argv, env=environment(), capture_output=True, text=True, check=False)
    assert told.returncode == USAGE
    assert "hypothesis is missing: looked for" in line(told.stderr)
    assert "pip install 'onecharge[explore]'" in told.stderr


# -- Ctrl-C ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["explore", "sweep"])
def test_interrupted(project: Path, command: str) -> None:
    """Ctrl-C half way ends with 130 and leaves no process behind; what was tried until then is told and reported."""
    mark = f"{MARK}=interrupted-{command}-{project}"
    name, _, value = mark.partition("=")
    argv = ["env", "--default-signal=INT", *ARGV, command, "shop:shop", "--lanes", "2"]
    with subprocess.Popen(
        argv,
        env=environment(STEPS="90", **{name: value}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        until(lambda: tried(project) > 4)
        os.killpg(process.pid, signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED, err
    assert line(err) == "onecharge: interrupted"
    assert f"unknown: {command.replace('explore', 'exploration of schedules')}" in out
    assert "it was interrupted" in out
    report = data.read(project / "artifacts" / "report.json")
    assert report.status == "unknown"
    assert len(report.outcomes) > 0
    until(lambda: not marked(mark))


def tried(project: Path) -> int:
    """How many drills with a fault the lanes have carried out."""
    told = "".join(path.read_text() for path in (project / "artifacts").glob("lanes/*/history.jsonl"))
    found = [json.loads(one) for one in told.splitlines() if '"began"' in one]
    return sum(bool(event.get("schedule")) for event in found)
