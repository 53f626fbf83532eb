"""Fixtures for the harness's plain tests: everything real, nothing mocked."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from chaos.workers.supervisor import Supervisor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor of its own for one test."""
    with Supervisor(tmp_path / "logs") as supervisor:
        yield supervisor


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Runs pytest in a process of its own, with nothing of ours in its environment; `files` are written before.

    Other plugins are loaded by autoload=True only, which costs a second.
    """
    for name in ("PYTEST_ADDOPTS", "CI", "GITHUB_ACTIONS", *(name for name in os.environ if "PYTEST_" in name)):
        monkeypatch.delenv(name, raising=False)

    def run(*args: str, autoload: bool = False, plugin: bool = True, **files: str) -> pytest.RunResult:
        if files:
            pytester.makepyfile(**files)
        if autoload:
            return pytester.runpytest_subprocess(*args)
        with monkeypatch.context() as context:
            context.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
            return pytester.runpytest_subprocess(*(("-p", "onecharge") if plugin else ()), *args)

    return run
