"""A minute of rebalances: members join, leave, are killed and frozen under load; nothing is lost, doubled, overtaken.

Two groups have a member each that stays. Guests come and go beside it, as dynamic members: who is killed or frozen for
long is missed, its partitions go to others, and it wakes up to find that they are not its own.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import psycopg
import pytest

from chaos import Worker
from chaos.errors import NotInTime
from chaos.waiting import Deadline, wait_until
from pipeline.process import inventory, notification
from tests.fix_groups import ORDER, PLACED, STOCK_UP, groups, placed
from tests.fix_returns import FAILED
from tests.twins import group_no_inbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos import Lane, Run, Session, Verdict
    from chaos.workers.process import Process

pytestmark = pytest.mark.drills

SECONDS, PER_S, PARTITIONS = 60, 100, 6
GUESTS, EVERY_S, LONGEST_S = 3, 0.25, 2.0  # of each group; something happens to one; one is frozen at most
PATIENCE_S = 20.0  # for the last orders
AT_LEAST = 10  # times that each of the four happened
SESSION = {"NAMESPACE": "{lane}", "SESSION_TIMEOUT_MS": "500"}
WRONG = """
    with mailed as (select order_id, count(*) as mails from mails group by order_id)
    select order_id, held.state, coalesce(mails, 0)
    from orders left join reservations as held using (order_id) left join mailed using (order_id)
    where held.state is null or mails is distinct from 1
        or (orders.state = 'failed') <> (held.state in ('released', 'refused'))
"""
DOUBLED = "select from mails group by order_id having count(*) > 1 limit 1"


class Storm:
    """Guests of the groups, until it is over; what happened to them is counted."""

    def __init__(self, lane: Lane, mains: Sequence[Callable[[], object]]) -> None:
        self._lane = lane
        self._workers = [Worker(f"guest-{number}", main, GUESTS, env=SESSION) for number, main in enumerate(mains)]
        self._places: list[Process | None] = [None for _ in range(len(mains) * GUESTS)]
        self._frozen: dict[int, float] = {}
        self._chance = random.Random(1)
        self.happened: Counter[str] = Counter()

    def rage(self, over: threading.Event) -> None:
        """Let things happen. All guests are gone at the end."""
        try:
            while not over.wait(EVERY_S):
                self.thaw(time.monotonic())
                self.happen(self._chance.randrange(len(self._places)))
        finally:
            for process in filter(None, self._places):
                process.kill()

    def thaw(self, now: float) -> None:
        """Wake those who have slept for long enough."""
        for place in [place for place, until in self._frozen.items() if until <= now]:
            del self._frozen[place]
            process = self._places[place]
            assert process is not None
            process.signal(signal.SIGCONT)

    def happen(self, place: int) -> None:
        """One thing, to one guest, or to a place without one."""
        process = self._places[place]
        if process is None:
            self.happened["joined"] += 1
            self._places[place] = self._lane.start(self._workers[place // GUESTS], replica=place % GUESTS)
            return
        process.require_running()
        if place in self._frozen:
            return
        what = self._chance.choice(["left", "killed", "frozen"])
        self.happened[what] += 1
        if what == "frozen":
            process.signal(signal.SIGSTOP)
            self._frozen[place] = time.monotonic() + self._chance.uniform(0.1, LONGEST_S)
            return
        self._places[place] = None
        if what == "killed":
            process.kill()
        else:
            ended = process.stop(Deadline(10))
            assert ended.status == 0, f"{process.name} was to leave, and {ended}"


def customers(run: Run, mains: Sequence[Callable[[], object]], seconds: float, happened: Counter[str]) -> None:
    """Place orders at a steady rate through a storm; a third is cancelled at once, of a third payment was declined.

    It is over early where a mail was written twice: there is nothing more to find then.
    """
    storm, over = Storm(run.lane, mains), threading.Event()
    sku = f"sku-{uuid4()}"
    run.execute(STOCK_UP, sku, 10_000_000)
    with ThreadPoolExecutor() as sky, psycopg.connect(run.lane.postgres, autocommit=True) as connection:
        weather, began = sky.submit(storm.rage, over), time.monotonic()
        try:
            for number in range(int(seconds * PER_S)):
                if number % PER_S == 0 and run.execute(DOUBLED):
                    break
                time.sleep(max(0.0, began + number / PER_S - time.monotonic()))
                order_id = place(connection, sku, ("charged", "declined", None)[number % 3])
        finally:
            over.set()
        weather.result()
    run.accept(order_id)
    happened.update(storm.happened)

    def all_right_or_doubled() -> bool:
        wrong = run.execute(WRONG)
        return not wrong or any(mails > 1 for _, _, mails in wrong)

    with contextlib.suppress(NotInTime):  # what is wrong is looked at again
        wait_until("every order to have what it should", all_right_or_doubled, Deadline(PATIENCE_S))


def place(connection: psycopg.Connection, sku: str, payment: str | None) -> str:
    """Accept an order of which it is known what became of its payment; nothing: because it is cancelled."""
    order_id = uuid4().hex
    with connection.transaction():
        connection.execute(ORDER, [order_id, payment])
        connection.execute(PLACED, placed(order_id, sku, 1))
        if payment is None:
            connection.execute(FAILED, [order_id])
    return order_id


def storm_over(
    session: Session, notification: Callable[[], object], seconds: float, within: float
) -> tuple[Verdict, list[tuple[object, ...]], Counter[str]]:
    """What the drill says, which orders are not as they should be, and how often what happened."""
    happened: Counter[str] = Counter()
    workload = partial(customers, mains=[inventory.main, notification], seconds=seconds, happened=happened)
    with groups(
        session,
        notification=notification,
        partitions=PARTITIONS,
        dynamic=True,
        workload=workload,
        within=within,
    ) as system:
        return system.drill(), system.lane.look(WRONG), happened


def test_nothing_is_lost_or_doubled(onecharge: Session) -> None:
    """Every order has its goods or has none, as it came out, and one mail, whoever came and went meanwhile."""
    verdict, wrong, happened = storm_over(onecharge, notification.main, SECONDS, SECONDS + 30)
    verdict.require_holds()
    assert wrong == []
    assert min(happened[what] for what in ("joined", "left", "killed", "frozen")) >= AT_LEAST, happened


def test_commits_now_and_then_are_found(onecharge: Session) -> None:
    """A group that commits once a second, and has no inbox, writes mails twice when members come and go.

    It never commits its last offsets, so there is no end to wait for.
    """
    _, wrong, _ = storm_over(onecharge, group_no_inbox.seldom, SECONDS, 10)
    assert {mails for _, _, mails in wrong} - {0, 1}, wrong
