"""How exact kills and losses are: many times, on real servers, under a load that makes inexactness show.

kills_pipelined, kills_one_by_one    how often a worker was killed that sends over four connections at once: in bursts;
                                     each effect awaited
landed_late_…                        rows, messages, requests, and sessions of it that were there after the fault fired
naive_…                              the same count for SIGKILL alone, a tenth as often: what there would be to find
lose_request_off, lose_reply_off     of 30 messages with five in flight and the fifteenth broken, how many there were:
                                     least and most, idempotence off; expected 30 and 31
lose_request_on, lose_reply_on       idempotence on; expected 30 and 30
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.report import arguments, report
from chaos import Session
from tests.chaos.wire import exact_workers
from tests.chaos.wire.exact import kills, losses


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--kills", type=int, default=500, help="of each (default: 500)")
    parser.add_argument("--losses", type=int, default=50, help="of each (default: 50)")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="exact-") as directory, Session(Path(directory)) as session:
        for run in (exact_workers.pipelined, exact_workers.one_by_one):
            name = run.__name__
            landed = kills(session, run, options.kills)
            figures |= {f"kills_{name}": landed.kills, f"effects_{name}": landed.effects}
            figures |= {f"landed_late_{name}": landed.late}
            figures |= {f"naive_landed_late_{name}": kills(session, run, options.kills // 10, naive=True).late}
        for fault in ("lose-request", "lose-reply"):
            for idempotence in ("off", "on"):
                found = losses(session, fault, idempotence=idempotence, count=options.losses)
                name = f"{fault.replace('-', '_')}_{idempotence}"
                figures |= {f"{name}_least": min(found), f"{name}_most": max(found)}
    report(figures, options.json)


if __name__ == "__main__":
    main()
