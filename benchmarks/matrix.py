"""The whole matrix: each worker of the shop loses each service that it uses, in each way; how soon all is done again.

cells                  drills, each a worker, a service and a way; all of them hold. The clients' time-outs are 1 s
cells_default          the diagonal again, with the clients' time-outs at their defaults and longer faults
seconds                that all of them took together
recovery_s_max, _p50   from when it was whole again until the last effect
healed_s_postgres_max  from the order to start Postgres again, when it was killed, until it answered
healed_s_kafka_max     likewise for Kafka
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from tests.fix_matrix import Outcome, carry_out, carry_out_patiently, cells, diagonal, page, table

if TYPE_CHECKING:
    from collections.abc import Iterable


def main() -> None:
    """Carry them out, and report."""
    parser = arguments(__doc__)
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the table there as a page")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="onecharge-") as directory, Session(Path(directory)) as session:
        outcomes = told(carry_out(session, [*cells()]))
        patient = told(carry_out_patiently(session, diagonal()))
    print(f"\n{table(outcomes)}\n\nThe diagonal with time-outs at their defaults:\n\n{table(patient)}\n")
    if options.html is not None:
        options.html.write_text(page(outcomes), encoding="utf-8")
    recoveries = [one.recovery_s or 0.0 for one in outcomes]
    figures = {
        "cells": float(len(outcomes)),
        "cells_default": float(len(patient)),
        "seconds": time.monotonic() - began,
        "recovery_s_max": max(recoveries),
        "recovery_s_p50": statistics.median(recoveries),
    }
    for service in ("postgres", "kafka"):
        killed = [one.healed_s or 0.0 for one in outcomes if one.cell.service == service and one.cell.way == "killed"]
        figures[f"healed_s_{service}_max"] = max(killed)
    report(figures, options.json)
    wrong = [one for one in [*outcomes, *patient] if one.verdict.status != "holds"]
    sys.exit("\n".join(one.verdict.story() for one in wrong) or None)


def told(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """All of them, each said when it is there."""
    found = []
    for one in outcomes:
        print(f"{one.text:>9}  {one.verdict.schedule}", flush=True)
        found.append(one)
    return found


if __name__ == "__main__":
    main()
