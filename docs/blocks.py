"""Try every block of code in README, CONTRIBUTING and docs/; `./run docs` does, when it has built the pages.

- `python`: those of a page are the files of one project, beside `tests/readme`, which is the code that README calls
  yours. A line `# tests/test_x.py` says what file follows. pytest runs it, with real servers.
- `console`, `sh`: each command is understood by the program that it names. Where lines begin with `$ ` these are the
  commands, and the others what they print. Of a `console` these are carried out as well: `onecharge` sweep, explore and
  replay, in the page's project, each only a part (`SHORTER`); `./run up`, until what it has broken is back. The other
  `./run NAME` are what CI runs by itself, which is looked up. Understood and no more: benchmarks, `onecharge report`,
  which needs what other machines have written, `pip`, and whatever is in a workflow or in `sh`.
- `yaml`, `json`, `toml` are parsed, and what a workflow's steps run are commands.

What is none of these says why in a comment before it, `<!-- not run: why -->`, and is listed: it is what something has
printed, or a sketch. Another language is an error. The runbook is executed by drills, on what they have broken.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import tomllib
from collections import defaultdict
from functools import partial
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml
from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
YOURS = ROOT / "tests" / "readme"
SCHEMA = ROOT / "src" / "pipeline" / "schema.sql"
ELSEWHERE = {
    "docs/runbook.md": "drills execute it word for word, on what they have broken (test_runbook, test_slot_alarm)"
}
NOT_RUN = re.compile(r"<!-- not run: (.+?) -->\s*", re.DOTALL)
TIMEOUT_S = 600
# What is added to a command that would take minutes.
SHORTER = {"sweep": ["--shard", "1/8"], "explore": ["--seconds", "5"], "replay": ["--times", "2"]}
# Starts a program, and ends it when it has understood its arguments.
UNDERSTAND = """
import argparse, os, runpy, sys
parse = argparse.ArgumentParser.parse_args
argparse.ArgumentParser.parse_args = lambda *arguments: (parse(*arguments), os._exit(0))
runpy.run_module(sys.argv.pop(1), run_name="__main__")
sys.exit("it was run, as it reads no arguments")
"""


class Wrong(Exception):
    """A block does not do what it says."""


class Block(NamedTuple):
    """A block of code, where it begins, and why it is not run."""

    place: str
    language: str
    text: str
    excuse: str


def blocks(file: Path) -> Iterator[Block]:
    """All of a page, also those without fences, whose language is nobody's."""
    page, before = str(file.relative_to(ROOT)), ""
    for token in MarkdownIt().parse(file.read_text(encoding="utf-8")):
        if token.type in {"fence", "code_block"}:
            excuse = NOT_RUN.fullmatch(before)
            line = token.map[0] + 1 if token.map else 0
            why = ELSEWHERE.get(page) or (" ".join(excuse[1].split()) if excuse else "")
            yield Block(f"{page}:{line}", token.info.strip(), token.content, why)
        before = token.content if token.type == "html_block" else ""


def commands(text: str, code: Sequence[str] | None = None) -> str:
    """Have each command understood; where there is the Python of its page, carry out what can be."""
    lines = text.splitlines()
    understood: list[str] = []
    carried_out: list[str] = []
    for line in [line[2:] for line in lines if line.startswith("$ ")] or lines:
        for command in line.split("&&"):
            words = shlex.split(command, comments=True)
            if words and words[0] not in PROGRAMS:
                raise Wrong(f"nobody here can say whether `{command.strip()}` is right")
            if words:
                PROGRAMS[words[0]](words[1:])
                done = CARRIED_OUT[words[0]](words[1:], code) if code is not None and words[0] in CARRIED_OUT else ""
                (carried_out if done else understood).append(done or shlex.join(words[:3]))
    told = {"carried out": carried_out, "understood": understood}
    return "; ".join(f"{what}: {', '.join(which)}" for what, which in told.items() if which)


def _run(words: list[str]) -> None:
    if f"[testenv:{words[0]}]" not in (ROOT / "tox.ini").read_text(encoding="utf-8"):
        raise Wrong(f"tox.ini has no environment {words[0]}")
    by_ci = re.findall(r"(?m)\./run (\w+)$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"))
    if words[0] not in {*by_ci, "up"}:
        raise Wrong(f"CI does not run {words[0]}")


def _python(words: list[str]) -> None:
    if words[0] != "-m":
        raise Wrong("expected `python -m MODULE`")
    _start(words[1], words[2:])


def _start(module: str, words: list[str]) -> None:
    asked = _call([sys.executable, "-c", UNDERSTAND, module, *words], ROOT)
    if asked.returncode:
        raise Wrong(f"{module} {shlex.join(words)}: {asked.stdout.strip()}")


def _pytest(words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as empty:
        asked = _call([sys.executable, "-m", "pytest", *words, "--collect-only"], Path(empty))
    if asked.returncode not in {0, 5}:  # 5: there are no tests
        raise Wrong(asked.stdout)


def _pip(words: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {extra for extras in re.findall(r"onecharge\[(.+?)\]", " ".join(words)) for extra in extras.split(",")}
    if words[0] != "install" or not asked <= project["optional-dependencies"].keys():
        raise Wrong(f"pip {shlex.join(words)}: pyproject.toml has no such extras")


def _onecharge(words: Sequence[str], code: Iterable[str]) -> str:
    if words[0] not in SHORTER:
        return ""
    argv = [*words, *SHORTER[words[0]]]
    with made(code) as here:
        ran = _call([sys.executable, "-m", "chaos.cli", *argv], here)
    if ran.returncode:
        raise Wrong(f"onecharge {shlex.join(argv)}: exit code {ran.returncode}\n{ran.stdout}")
    return f"onecharge {shlex.join([words[0], *SHORTER[words[0]]])}"


def _up(words: Sequence[str], _code: Iterable[str]) -> str:
    if words[0] != "up":
        return ""
    enough = "is started again" if "--break" in words else "everything runs"
    argv = [sys.executable, "-m", "pipeline", *words]
    told = []
    with subprocess.Popen(argv, cwd=ROOT, env=_env(ROOT), text=True, stdout=PIPE, stderr=STDOUT) as process:
        timer = threading.Timer(TIMEOUT_S, process.kill)
        timer.start()
        for line in process.stdout or ():
            told.append(line)
            if enough in line:
                process.send_signal(signal.SIGINT)
        timer.cancel()
    if process.returncode or not any(enough in line for line in told):
        raise Wrong(f"{shlex.join(words)}: exit code {process.returncode}\n{''.join(told)}")
    return f"./run {shlex.join(words)}, until it said '{enough}'"


PROGRAMS = {
    "./run": _run,
    "python": _python,
    "onecharge": lambda words: _start("chaos.cli", words),
    "pytest": _pytest,
    "pip": _pip,
}
# Given their words and the Python of the page they return what they have done, or nothing if that cannot be done here.
CARRIED_OUT: Mapping[str, Callable[[Sequence[str], Sequence[str]], str]] = {"onecharge": _onecharge, "./run": _up}


def document(text: str) -> str:
    """Parse YAML. The steps of a workflow are commands, whatever its expressions stand for."""
    content = yaml.safe_load(text)
    jobs = content.get("jobs", {}) if isinstance(content, dict) else {}
    steps = [step for job in jobs.values() for step in job["steps"]]
    told = "\n".join(re.sub(r"\$\{\{.*?\}\}", "1", step["run"]) for step in steps if "run" in step)
    return f"parsed; {commands(told)}" if told else "parsed"


def files_of(texts: Iterable[str]) -> dict[str, list[str]]:
    """The lines of each file in the Python of a page."""
    files: dict[str, list[str]] = defaultdict(list)
    name = "without_a_name.py"
    for line in (line for text in texts for line in text.splitlines()):
        named = re.fullmatch(r"# ([\w/]+\.py)", line)
        name = named[1] if named else name
        files[name].append(line)
    return files


@contextlib.contextmanager
def made(texts: Iterable[str]) -> Iterator[Path]:
    """The project that the Python of a page makes."""
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory, "project")
        shutil.copytree(YOURS, here)
        shutil.copy(SCHEMA, here)
        for name, lines in files_of(texts).items():
            (here / name).parent.mkdir(exist_ok=True)
            (here / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        yield here


def project(texts: Sequence[str]) -> str:
    """Run the Python of a page."""
    files = files_of(texts)
    with made(texts) as here:
        ran = _call([sys.executable, "-m", "pytest", "-q", "--onecharge-budget=5", "--onecharge-require", *files], here)
    if ran.returncode:
        raise Wrong(ran.stdout)
    return f"{', '.join(files)}: {ran.stdout.splitlines()[-1].strip(' =')}"


def _call(argv: list[str], directory: Path) -> subprocess.CompletedProcess[str]:
    env = _env(directory)
    return subprocess.run(
        argv, cwd=directory, env=env, text=True, stdout=PIPE, stderr=STDOUT, timeout=TIMEOUT_S, check=False
    )


def _env(directory: Path) -> dict[str, str]:
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": f"{directory}:{ROOT / 'src'}:{ROOT}",
    }


def parsed(text: str) -> str:
    """Parse JSON."""
    json.loads(text)
    return "parsed"


LANGUAGES = {
    "sh": commands,
    "json": parsed,
    "toml": lambda text: f"parsed: {', '.join(tomllib.loads(text))}",
    "yaml": document,
}


def run(page: Iterable[Block]) -> Iterator[tuple[Block, str, bool]]:
    """Run the blocks of a page; what came of each, and whether it is right."""
    page = list(page)
    code = [block for block in page if block.language == "python" and not block.excuse]
    texts = [block.text for block in code]
    for block in page:
        if block.excuse:
            yield block, f"not run: {block.excuse}", True
        elif block.language == "python":
            continue
        elif block.language == "console":
            yield block, *_tried(partial(commands, code=texts), block.text)
        elif block.language not in LANGUAGES:
            yield block, f"{block.language or 'code without a language'} is run by nobody", False
        else:
            yield block, *_tried(LANGUAGES[block.language], block.text)
    for block in code[:-1]:
        yield block, f"run with {code[-1].place}", True
    if code:
        yield code[-1], *_tried(project, texts)


def _tried(what: Any, text: Any) -> tuple[str, bool]:
    try:
        return what(text), True
    except (Wrong, ValueError, LookupError, yaml.YAMLError) as error:
        return str(error), False


def main() -> int:
    """Run all that is there, and say what came of it."""
    files = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    wrong = 0
    for block, what, right in (one for file in files for one in run(blocks(file))):
        sys.stdout.write(f"{block.place:<20} {block.language:<8} {'' if right else 'WRONG: '}{what}\n")
        sys.stdout.flush()
        wrong += not right
    sys.stdout.write(f"{wrong} blocks are wrong\n" if wrong else "all blocks are right\n")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
