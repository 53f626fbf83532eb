"""The API is what `/openapi.json` says of it: Schemathesis asks it everything that this allows, and what it does not.

Schemathesis runs in a process of its own, by its command line. Its plugin for pytest is switched off (pyproject.toml):
it imports itself and Hypothesis into every run, which is a second for each worker of xdist, and would have its tests
under our warnings and our Hypothesis settings. What it draws is the same each time, so a failure comes again; how to
send just that request stands in its output, as a line of curl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from pipeline.write.openapi import DESCRIPTION
from pipeline.write.problems import Document
from tests.pipeline.workers import Start, Worker, free_port

if TYPE_CHECKING:
    import psycopg

    from chaos import Lane

ROOT = Path(__file__).parents[2]
OPTIONS = ("--checks=all", "--generation-deterministic", "--output-sanitize=false", "--no-color", "--report=json,har")


class Found(NamedTuple):
    """What Schemathesis says."""

    code: int
    output: str
    report: dict[str, Any]
    replies: list[dict[str, Any]]  # all that there were

    def bodies(self, status: int) -> list[str]:
        """Of the replies with this status."""
        return [reply["content"]["text"] for reply in self.replies if reply["status"] == status]


def schemathesis(api: Worker, directory: Path, *options: str) -> Found:
    """Have it ask the API."""
    url = f"http://127.0.0.1:{api.port}/openapi.json"
    report, har = directory / "report.json", directory / "har.json"
    files = (f"--report-json-path={report}", f"--report-har-path={har}")
    env = {"SCHEMATHESIS_HOOKS": "tests.pipeline.fresh_keys", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    ended = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", url, *OPTIONS, *files, *options],
        cwd=directory,  # it keeps notes there
        env=os.environ | env,
        capture_output=True,
        text=True,
        check=False,
    )
    output = ended.stdout + ended.stderr
    assert report.exists(), output
    entries = json.loads(har.read_text())["log"]["entries"]
    return Found(ended.returncode, output, json.loads(report.read_text()), [entry["response"] for entry in entries])


@pytest.mark.slow
def test_the_api_keeps_to_its_description(api: Worker, db: psycopg.Connection, tmp_path: Path) -> None:
    """No 5xx, no reply that is not described, every valid order accepted, and of what was refused no trace."""
    found = schemathesis(api, tmp_path, "--phases=examples,coverage,fuzzing", "--max-examples=50")
    assert found.code == 0, found.output
    assert found.report["operations"]["tested"] == len(DESCRIPTION["paths"])
    statuses = Counter(reply["status"] for reply in found.replies)
    assert statuses.keys() >= {200, 202, 400, 405, 415, 422}  # `test_api` has those that take more than a request
    for status in statuses.keys() - {200, 202}:
        assert {Document.model_validate_json(body).status for body in found.bodies(status)} == {status}
    accepted = {json.loads(body)["order_id"] for body in found.bodies(202)}
    assert len(accepted) > statuses[202] / 2  # some were sent again as they were
    for table in ("orders", "outbox"):
        rows = db.execute(f"select order_id from {table}").fetchall()  # noqa: S608 - our own names
        assert sorted(order_id for (order_id,) in rows) == sorted(accepted)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("twin", "failures"),
    [
        ("api_fails", {"ServerError", "UndefinedStatusCode"}),
        ("api_refuses", {"UndefinedStatusCode", "RejectedPositiveData"}),
        ("api_tells_more", {"JsonSchemaError"}),
        ("api_ignores", {"AcceptedNegativeData"}),
    ],
)
@pytest.mark.usefixtures("db")
def test_a_twin_does_not(start: Start, lane: Lane, tmp_path: Path, twin: str, failures: set[str]) -> None:
    """An API that answers otherwise than it says is found out, and for that reason."""
    api = start(twin, DATABASE_URL=lane.postgres, PORT=free_port()).listening()
    found = schemathesis(api, tmp_path, "--phases=coverage", "--max-failures=1", "--include-path=/orders")
    assert (found.code, {one["type"] for one in found.report["failures"]}) == (1, failures), found.output
