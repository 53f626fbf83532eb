"""The pytest plugin: the session-scoped fixture ``onecharge``, its options, and what is told about drills.

Small and lazy: it is loaded in every test run on a machine where the library is installed, so it imports nothing but
pytest until a test asks for the fixture.
"""

from __future__ import annotations

import math
import os
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from chaos.errors import Told
    from chaos.session import Session

_SESSION: pytest.StashKey[Session] = pytest.StashKey()
_VERDICTS: pytest.StashKey[list[Told]] = pytest.StashKey()
_ATTRIBUTE = "onecharge_drills"
_WHOLE = "1/1"
_TAIL_LINES = 15
_LIVE_S = 0.1
_LONGEST = 150  # of a directory's name; some file systems have room for 255 bytes


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the group of options; each starts with ``--onecharge-``."""
    group = parser.getgroup("onecharge", "onecharge: crash drills on real servers")
    group.addoption(
        "--onecharge-postgres", metavar="DSN", help="use this Postgres instead of starting one; may create databases"
    )
    group.addoption(
        "--onecharge-kafka", metavar="ADDRESS", help="use this Kafka (bootstrap servers) instead of one of our own"
    )
    group.addoption(
        "--onecharge-services",
        metavar="KIND",
        choices=("local", "docker"),
        default="local",
        help="what servers of our own are: plain processes (local, the default), or containers (docker)",
    )
    group.addoption(
        "--onecharge-image",
        metavar="SERVER=IMAGE",
        action="append",
        default=[],
        help="the image of postgres, kafka or toxiproxy, instead of the official one; may be given for each",
    )
    group.addoption(
        "--onecharge-output",
        metavar="DIR",
        default="artifacts",
        help="where logs and ledgers are kept (default: artifacts)",
    )
    group.addoption(
        "--onecharge-lanes",
        metavar="N",
        type=int,
        default=1,
        help="how many systems of one kind run side by side, where a test asks for lanes (default: 1)",
    )
    group.addoption(
        "--onecharge-shard",
        metavar="K/N",
        default=_WHOLE,
        help="sweeps carry out only the K-th of N parts, for N machines; `onecharge report` merges what they find",
    )
    group.addoption(
        "--onecharge-budget", metavar="SECONDS", type=float, help="of each exploration, instead of what its test says"
    )
    group.addoption(
        "--onecharge-replay", metavar="SCHEDULE", help="tests that are explored run only this schedule, ten times"
    )
    group.addoption(
        "--onecharge-require",
        action="store_true",
        default=None,
        help="a missing server, client or runtime fails a test instead of skipping it (the default where CI is set)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse options that mean nothing before a server is started for them."""
    config.addinivalue_line(
        "markers", "drills: breaks a system of real workers on real servers and judges it by a ledger"
    )
    config.stash[_VERDICTS] = []
    lanes, budget = config.getoption("--onecharge-lanes"), config.getoption("--onecharge-budget")
    shard, schedule = config.getoption("--onecharge-shard"), config.getoption("--onecharge-replay")
    images = config.getoption("--onecharge-image")
    if lanes < 1:
        raise pytest.UsageError(f"--onecharge-lanes={lanes}: expected at least one")
    if budget is not None and not 0 < budget < math.inf:
        raise pytest.UsageError(f"--onecharge-budget={budget:g}: expected seconds, more than none")
    if shard != _WHOLE or schedule is not None or images:
        _require_readable(shard, schedule, images)


def _require_readable(shard: str, schedule: str | None, images: list[str]) -> None:
    from chaos.errors import ChaosError  # noqa: PLC0415 - an unrelated test run must not pay for it
    from chaos.schedule import Schedule  # noqa: PLC0415 - as above
    from chaos.services.docker import named_images  # noqa: PLC0415 - as above
    from chaos.sweep import Shard  # noqa: PLC0415 - as above

    try:
        Shard.parse(shard)
        Schedule.parse(schedule or "")
        named_images(images)
    except ChaosError as error:
        raise pytest.UsageError(str(error)) from error


@pytest.fixture(scope="session")
def onecharge(request: pytest.FixtureRequest) -> Iterator[Session]:
    """The test run's `chaos.Session`: ``with onecharge.lane(schema=…, topics=…) as lane``.

    Servers start when a lane first needs them. A part that is missing on this machine skips the test, or fails it in
    CI and with ``--onecharge-require``.
    """
    from chaos.services.docker import named_images  # noqa: PLC0415 - an unrelated test run must not pay for it
    from chaos.session import Session  # noqa: PLC0415 - as above

    config = request.config
    output = (
        config.rootpath
        / config.getoption("--onecharge-output")
        / getattr(config, "workerinput", {}).get("workerid", "")
    )
    terminal = _Terminal(config)
    session = Session(
        output,
        directory=config.rootpath,
        postgres=config.getoption("--onecharge-postgres"),
        kafka=config.getoption("--onecharge-kafka"),
        services=config.getoption("--onecharge-services"),
        images=named_images(config.getoption("--onecharge-image")),
        progress=terminal.step,
        on_verdict=config.stash[_VERDICTS].append,
        lanes=config.getoption("--onecharge-lanes"),
        shard=config.getoption("--onecharge-shard"),
        live=terminal.live,
    )
    with session:
        config.stash[_SESSION] = session
        yield session


class _Terminal:
    """Shows on the terminal what takes long, past pytest's capturing; in workers of xdist, nowhere."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
        self._capture: Any = config.pluginmanager.get_plugin("capturemanager")
        self._last = ""
        self._next = 0.0

    def live(self, text: str) -> None:
        """How far a sweep or an exploration is, in a line that is written over; nothing where nobody looks."""
        if self._reporter is None or self._capture is None or not self._reporter.isatty:
            return
        if time.monotonic() > self._next:
            self._next = time.monotonic() + _LIVE_S
            writer = self._reporter._tw  # noqa: SLF001 - the reporter has no public way to rewrite a line
            with self._capture.global_and_fixture_disabled():
                writer.write(f"\r\x1b[K{text[: writer.fullwidth - 1]}\r")
                writer.flush()

    def step(self, what: str, done: int, total: int) -> None:
        """A slow step of a first run."""
        if self._reporter is None or self._capture is None:
            return
        writer = self._reporter._tw  # noqa: SLF001 - the reporter has no public way to rewrite a line
        with self._capture.global_and_fixture_disabled():
            if not writer.hasmarkup:
                if what != self._last:
                    self._reporter.write_line(what)
            else:
                bar = "█" * (20 * done // total)
                writer.write(f"\r{what} {bar:<20} {100 * done // total:3d} %" + ("\n" if done == total else ""))
                writer.flush()
        self._last = what


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put a test's verdicts, and on failure the ends of all logs, on its report; missing parts become skips."""
    verdicts = item.config.stash[_VERDICTS]
    for verdict in verdicts:
        item.user_properties.append(("onecharge", f"{verdict.status}: {verdict.schedule}"))
        if (example := getattr(verdict, "counterexample", None)) is not None:
            item.user_properties.append(("onecharge_counterexample", str(example)))
    pages = _write_reports(item, call.when, verdicts) if verdicts else []
    item.user_properties += [("onecharge_timeline", str(page)) for page in pages]
    report = yield
    if verdicts:
        full = report.failed or item.config.get_verbosity() > 0
        stories = [verdict.story() if full else _brief(verdict) for verdict in verdicts]
        stories += [f"  timeline  {page}" for page in pages if full]
        setattr(report, _ATTRIBUTE, stories)  # strings cross xdist by themselves
        verdicts.clear()
    if report.failed and "onecharge" in getattr(item, "fixturenames", ()):
        _skip_if_missing(item.config, call, report)
        session = item.config.stash.get(_SESSION, None)
        if session is not None and report.failed:
            report.sections += _log_sections(session, since=call.start)
    return report


def _brief(told: Told) -> str:
    """What is said of what holds: a line, and what only a note tells, such as that a bug is gone."""
    notes = (f"  note        {note}" for note in getattr(told, "notes", ()))
    return "\n".join((told.story().partition("\n")[0], *notes))


def _write_reports(item: pytest.Item, when: str, verdicts: list[Told]) -> list[Path]:
    """Reports of what a test has told, as data and as pages; the pages' paths."""
    from chaos.report import build  # noqa: PLC0415 - see the fixture

    session = item.config.stash.get(_SESSION, None)
    if session is None:
        return []
    name = re.sub(r"[^\w.-]+", "-", item.nodeid).strip("-") + ("" if when == "call" else f"-{when}")
    return build.write(session.output / "reports" / name[-_LONGEST:], list(build.reports(verdicts, item.nodeid)))


def _skip_if_missing(config: pytest.Config, call: pytest.CallInfo[None], report: pytest.TestReport) -> None:
    from chaos.errors import MissingPart  # noqa: PLC0415 - see the fixture

    required = config.getoption("--onecharge-require") or os.environ.get("CI", "") not in {"", "0", "false"}
    if call.excinfo is None or not isinstance(call.excinfo.value, MissingPart) or required:
        return
    report.outcome = "skipped"
    report.longrepr = (str(report.fspath), report.location[1] or 0, f"Skipped: {call.excinfo.value}")


def _log_sections(session: Session, *, since: float) -> list[tuple[str, str]]:
    """The end of each log that was written to in this phase of the test."""
    from chaos.errors import tail  # noqa: PLC0415 - see the fixture

    logs: dict[Path, str] = {}
    for process in session.supervisor.processes:
        if process.log.exists() and process.log.stat().st_mtime >= since:
            logs[process.log] = f"{process.name} {process.exit or 'is running'}"
    return [(f"{state} · {log}", text) for log, state in logs.items() if (text := tail(log, _TAIL_LINES)).strip()]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Tell each drill: what was broken and the verdict; with -v or on failure also the ledger's lines it rests on."""
    if hasattr(config, "workerinput"):
        return
    stories = [
        (report.nodeid, story)
        for reports in terminalreporter.stats.values()
        for report in reports
        for story in getattr(report, _ATTRIBUTE, ())
    ]
    stories += [("interrupted", told.story()) for told in config.stash[_VERDICTS]]  # there is no report of that test
    if not stories:
        return
    terminalreporter.section("onecharge: drills")
    seen = ""
    for nodeid, story in stories:
        if nodeid != seen:
            terminalreporter.write_line(nodeid, bold=True)
        seen = nodeid
        terminalreporter.write_line(story)
