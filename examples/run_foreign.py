"""Run the tests of other people's projects, the folders beside this script, with nothing but the built wheel.

::

    python examples/run_foreign.py [pytest's arguments]

The wheel is built once. Each project is copied out of the repository and tested in a fresh virtual environment of the
interpreter that runs this, in which the wheel and what the project's pyproject.toml names are installed as a stranger
would install them: by uv if there is one, else by pip. Logs, ledgers and the JUnit file, in which there has to be
what was told of drills, are kept in artifacts/foreign; everything else goes when the script ends. The exit code is
pytest's, of the first project that failed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What would let this repository, or the environment this script runs in, shine through.
_OURS = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "PYTEST_ADDOPTS"}

_LEFT_BEHIND = shutil.ignore_patterns("artifacts", "__pycache__", "node_modules", ".*")

# What a project's tests are run with besides: one of them in processes side by side.
_BESIDES = {"job_queue": ["-n", "2"]}

_PROBE = """
import importlib.util, pathlib, sysconfig, chaos
home, installed = pathlib.Path(chaos.__file__).parent, pathlib.Path(sysconfig.get_path("purelib"), "chaos")
assert home.resolve() == installed.resolve(), f"chaos comes from {home}, not from the wheel in {installed}"
assert (home / "py.typed").is_file(), f"{home} has no py.typed, so type checkers will not look into it"
assert importlib.util.find_spec("pipeline") is None, "the wheel contains `pipeline`, our own system under test"
"""


class Stranger:
    """A directory outside of the repository, with a virtual environment and room for a project."""

    def __init__(self, place: Path) -> None:
        if place.is_relative_to(ROOT):
            sys.exit(f"{place} is inside the repository: set TMPDIR to a directory outside of it.")
        place.mkdir()
        self._place = place
        self._python = place / "venv" / "bin" / "python"
        # In a tox environment uv is beside the interpreter.
        self._uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        make = [self._uv, "venv", "--quiet", "--python", sys.executable] if self._uv else [sys.executable, "-m", "venv"]
        self._run(*make, place / "venv")

    def build(self) -> Path:
        """Build the repository's wheel."""
        into = self._place / "dist"
        if self._uv:
            self._run(self._uv, "build", "--quiet", "--wheel", "--python", self._python, "--out-dir", into, ROOT)
        else:
            self._run(self._python, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", into, ROOT)
        [wheel] = into.glob("*.whl")
        return wheel

    def install(self, source: Path, wheel: Path) -> None:
        """Install what a project and its tests need; where they say onecharge, this wheel."""
        said = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))
        needed = said["project"].get("dependencies", []) + said["dependency-groups"]["test"]
        requirements = [f"{one} @ {wheel.as_uri()}" if one.startswith("onecharge") else one for one in needed]
        if self._uv:
            self._run(self._uv, "pip", "install", "--quiet", "--python", self._python, *requirements)
        else:
            self._run(self._python, "-m", "pip", "install", "--quiet", *requirements)

    def test(self, source: Path, arguments: list[str]) -> int:
        """Copy a project here and run its tests; pytest's exit code."""
        project = self._place / "project"
        shutil.copytree(source, project, ignore=_LEFT_BEHIND)
        self._run(self._python, "-c", _PROBE, directory=project)
        junit_file(source).unlink(missing_ok=True)
        to = [f"--onecharge-output={kept(source)}", f"--junit-xml={junit_file(source)}"]
        options = ["-W", "error", "--onecharge-require", *to, *_BESIDES.get(source.name, []), *arguments]
        return self._run(self._python, "-m", "pytest", *options, directory=project, check=False)

    def _run(self, *command: str | Path, directory: Path | None = None, check: bool = True) -> int:
        environment = {name: value for name, value in os.environ.items() if name not in _OURS}
        done = subprocess.run(command, cwd=directory or self._place, env=environment, check=False)
        if check and done.returncode != 0:
            sys.exit(f"failed with code {done.returncode}: {' '.join(map(str, command))}")
        return done.returncode


def kept(source: Path) -> Path:
    """Where what is left of a project's tests is kept."""
    return ROOT / "artifacts" / "foreign" / source.name


def junit_file(source: Path) -> Path:
    """What a CI would read."""
    return kept(source) / "junit.xml"


def what_ci_has(source: Path) -> str:
    """How much the JUnit file of a project says of drills; the script ends if that is nothing, or a page is missing."""
    if not junit_file(source).is_file():
        sys.exit(f"{junit_file(source)} was not written")
    root = ET.parse(junit_file(source)).getroot()  # noqa: S314 - our own file
    said = [(one.attrib["name"], one.attrib["value"]) for one in root.iter("property")]
    number = Counter(name for name, _ in said)
    lost = [page for name, page in said if name == "onecharge_timeline" and not Path(page).is_file()]
    tests = len(list(root.iter("testcase")))
    if lost or not (number["onecharge"] and number["onecharge_timeline"]):
        sys.exit(f"{junit_file(source)} has {tests} tests, {dict(number)}; not there: {lost}")
    told = f"{number['onecharge']} verdicts and {number['onecharge_timeline']} timelines, which are there"
    return f"junit.xml has {tests} tests, {told}"


def say(text: str) -> None:
    """Write a line between those of the programs that write to the same terminal."""
    print(f"foreign: {text}", flush=True)  # noqa: T201 - what a script has to say


def main(arguments: list[str]) -> int:
    """Test each project; the exit code."""
    codes = []
    with tempfile.TemporaryDirectory(prefix="foreign-") as directory:
        place = Path(directory).resolve()
        wheel = Stranger(place / "builder").build()
        say(f"{wheel.name} is built, Python is {sys.version.split()[0]}")
        for source in sorted(file.parent for file in ROOT.glob("examples/*/pyproject.toml")):
            began = time.monotonic()
            stranger = Stranger(place / source.name)
            stranger.install(source, wheel)
            say(f"{source.name}: ready after {time.monotonic() - began:.1f} s")
            began = time.monotonic()
            codes.append(stranger.test(source, arguments))
            say(f"{source.name}: pytest's exit code is {codes[-1]}, after {time.monotonic() - began:.1f} s")
            if not arguments:  # otherwise the tests that were asked for may have no drill
                say(f"{source.name}: {what_ci_has(source)}")
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
