"""Orders at a steady rate for minutes, with a random fault in a relay every few seconds: nothing is lost or overtaken.

For each of the two relays: events (three of each order, half a second apart) are committed one by one, and in each
period one fault of a random kind is done at a random arrival of a random effect. All of it happens to the same
processes, outbox and topic; nothing is reset in between. After each period its orders are judged, and at the end the
whole outbox is compared with the whole topic. A twin of the polling relay, which takes rows out of the outbox before it
produces them, goes through a tenth of it, and has to be found.

<relay>_events         so many were committed
<relay>_faults         of the faults so many were done; the others were at an effect that did not come
<relay>_violated       periods with an order that was lost or out of order; 0
<relay>_unknown        periods of which nothing can be said; 0
<relay>_lost           events of the outbox that are not on the topic; 0
<relay>_unheard_of     events on the topic that are not in the outbox; 0
<relay>_copies         messages beyond the first of their event: at least once is what relays promise
twin_violated          periods in which the twin was found; not 0
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.report import arguments, report
from chaos import Session
from tests.fix_relays import EVENTS, ORDER, SOME, event, relayed
from tests.twins import delete_before_produce

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from chaos import Run, System
    from chaos.invariants import Ledger

    Make = Callable[..., AbstractContextManager[System]]

RELAYS: dict[str, tuple[Make, tuple[str, ...]]] = {
    "polling": (partial(relayed, replicas=2), ("kafka.produce", "postgres.write")),
    "twin": (partial(relayed, relay=delete_before_produce.main), ("kafka.produce", "postgres.write")),
    "cdc": (partial(relayed, from_log=True), ("kafka.produce", "postgres.confirm")),
}
TWIN = "twin"
FAULTS = (
    *("crash-before", "crash-after", "crash-late=0.5", "lose-request", "delay=1", "hold=1"),
    *("freeze=held,1", "freeze=delivered,1"),
)
ANSWERED = ("lose-reply", "refuse")
BY_THE_TWIN = ("twin_lost", "twin_unheard_of", "twin_copies", "twin_unknown")  # nobody asks
NEW_ID = "select nextval(pg_get_serial_sequence('outbox', 'id')) from generate_series(1, %s)"


def orders_steadily(run: Run, topic: Ledger, *, per_s: float, seconds: float) -> None:  # noqa: ARG001 - as workloads are called
    """Commit so many events a second, one by one; each order has its next one half a second later."""
    under_way: list[list[str]] = [[] for _ in range(EVENTS)]  # by how many events they have
    began = time.monotonic()
    lag = max(1, int(per_s / 2 / EVENTS))
    for number in range(int(per_s * seconds / EVENTS) * EVENTS):
        time.sleep(max(0.0, began + number / per_s - time.monotonic()))
        ready = [seq for seq in range(1, EVENTS) if len(under_way[seq]) >= lag]
        left = int(per_s * seconds / EVENTS) - len(run.keys)
        seq = ready[-1] if ready else 0 if left else next(seq for seq in range(1, EVENTS) if under_way[seq])
        if seq:
            order_id = under_way[seq].pop(0)
        else:
            order_id = run.new_key()
            run.execute(ORDER, order_id)
            run.accept(order_id)
        run.execute(SOME, [run.execute(NEW_ID, 1)[0][0]], [event(order_id, seq + 1)])
        if seq + 1 < EVENTS:
            under_way[seq + 1].append(order_id)


def fault(chance: random.Random, effects: tuple[str, ...], most: int) -> str:
    """A fault at one of so many arrivals of one of the effects."""
    effect = chance.choice(effects)
    kinds = FAULTS if effect == "postgres.confirm" else FAULTS + ANSWERED
    return f"relay/{effect}#{chance.randint(1, most)}:{chance.choice(kinds)}"


def soak(session: Session, name: str, *, periods: int, per_s: float, seconds: float, seed: int) -> dict[str, float]:
    """One relay, for so many periods."""
    chance = random.Random(seed)
    make, effects = RELAYS[name]
    figures = dict.fromkeys(("events", "faults", "violated", "unknown"), 0.0)
    workload = partial(orders_steadily, per_s=per_s, seconds=seconds)
    with make(session, workload=workload, grace=5.0) as system:
        for number in range(periods):
            verdict = system.drill(fault(chance, effects, int(per_s * seconds / 2)))
            figures["events"] += EVENTS * len(verdict.keys)
            figures["faults"] += len(verdict.fired)
            if verdict.status != "holds":
                figures[verdict.status] += 1
                if name != TWIN:
                    print(verdict.story(), flush=True)
            if number % 12 == 11:  # noqa: PLR2004 - once a minute
                print(f"{name}: {number + 1} of {periods} periods, {figures}", file=sys.stderr, flush=True)
        written = {event_id for (event_id,) in system.lane.look("select event_id::text from outbox")}
        [ledger] = {invariant.ledger for invariant in system.invariants}
        there = [json.loads(line)["event_id"] for line in ledger.path.read_text(encoding="utf-8").splitlines()]
    figures |= {
        "lost": len(written - set(there)),
        "unheard_of": len(set(there) - written),
        "copies": len(there) - len(set(there)),
    }
    return {f"{name}_{what}": value for what, value in figures.items()}


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="of each relay (default: 10)")
    parser.add_argument("--per-second", type=float, default=100, help="events (default: 100)")
    parser.add_argument("--every", type=float, default=5, help="seconds between faults (default: 5)")
    parser.add_argument("--seed", type=int, default=1, help="which faults (default: 1)")
    options = parser.parse_args()
    figures: dict[str, float] = {}
    periods = int(60 * options.minutes / options.every)
    with tempfile.TemporaryDirectory(prefix="soak-") as directory, Session(Path(directory)) as session:
        for name in RELAYS:
            figures |= soak(
                session,
                name,
                periods=max(1, periods // 10) if name == TWIN else periods,
                per_s=options.per_second,
                seconds=options.every,
                seed=options.seed,
            )
    report({name: value for name, value in figures.items() if name not in BY_THE_TWIN}, options.json)


if __name__ == "__main__":
    main()
