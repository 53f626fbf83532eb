"""A whole system without any server, to be copied and run by whoever uses the command line or the plugin.

Its worker takes orders from a directory and writes its effects into a ledger. `BUG` in the environment makes it wrong:
with ``twice`` an order has two effects if the worker is killed when it has charged, with ``lost`` none if that is
before; with ``late`` all come once more when every drill was judged; with ``always`` each order has two. `STEPS` are
places where nothing goes wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import Condition, Ledger, System, Worker, nothing_lost, one_effect_per_key
from chaos.checkpoint import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Run, Session


def work() -> None:
    """Work until killed."""
    files, bug = Path(os.environ["FILES"]), os.environ.get("BUG")
    while True:
        for order in sorted((files / "orders").iterdir()):
            checkpoint("shop.taken")
            for step in range(int(os.environ.get("STEPS", "0"))):
                checkpoint(f"shop.step{step}")
            if bug == "lost":
                order.unlink()
            checkpoint("shop.charging")
            charge(files / "ledger.jsonl", order.name, again=bug == "twice")
            if bug == "always":
                charge(files / "ledger.jsonl", order.name, again=True)
            checkpoint("shop.charged")
            order.unlink(missing_ok=True)
        time.sleep(0.005)


def charge(ledger: Path, order: str, *, again: bool) -> None:
    """Write the effect of an order, unless it is there."""
    with ledger.open("a+") as file:
        file.seek(0)
        if again or order not in file.read():
            file.write(json.dumps({"order": order}) + "\n")


def place(run: Run) -> None:
    """An order, whose key is told before anybody can see it."""
    key = run.new_key()
    run.accept(key)
    (run.lane.files / "orders" / key).touch()


def waiting(lane: Lane) -> str:
    """The orders that are left."""
    left = len(list((lane.files / "orders").iterdir()))
    return f"{left} orders wait" if left else ""


@contextlib.contextmanager
def shop(session: Session) -> Iterator[System]:
    """The system, in a lane of its own."""
    with session.lane() as lane:
        (lane.files / "orders").mkdir()
        ledger = Ledger(lane.files / "ledger.jsonl", key="order")
        with System(
            lane,
            workers=[Worker(os.environ.get("NAME", "worker"), work, env={"FILES": "{files}"})],
            workload=place,
            settled=[Condition("no orders", waiting)],
            invariants=[one_effect_per_key(ledger), nothing_lost(ledger)],
            grace=0.1,
        ) as system:
            yield system
            if os.environ.get("BUG") == "late":
                ledger.path.write_text(2 * ledger.path.read_text())


not_a_function = "a text"
