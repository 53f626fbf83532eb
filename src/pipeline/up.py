"""`python -m pipeline up`: the whole pipeline on this machine, with servers of its own, until Ctrl-C.

Workers that end are started again, as a service manager would: at once, or later and later if they end at their start.
`--break WORKER` kills one of them again and again (the gateway is frozen instead, as its log is what all is judged by),
so that the page and the logs can be watched meanwhile. Nothing is left behind: servers, workers and their data end with
the command.

This is no worker. It is the one part of the pipeline that uses the harness, for what it has: servers in two seconds,
and processes that end with whoever has started them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.error import URLError
from uuid import uuid4

from chaos import Session, Worker
from chaos.errors import ChaosError
from chaos.report.live import Live
from chaos.waiting import Deadline
from pipeline import reconcile
from pipeline.display import operators, page
from pipeline.gateway import server as gateway
from pipeline.observe import exporter
from pipeline.process import inventory, notification, payment, retry
from pipeline.publish import relay
from pipeline.write import api

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from chaos import Lane
    from chaos.workers.process import Process

GROUPS = {"payment": payment.main, "inventory": inventory.main, "notification": notification.main}
TOPICS = {"orders": 4, **{f"{kind}.{group}": 1 for group in GROUPS for kind in ("retry", "dead")}}
START_S = 30.0
BREAK_S = 5.0  # between two breaks, and how long what is frozen is
LOOK_S = 0.05
STEADY_S = 3.0  # who has lived so long did not end at its start
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 15.0
GOODS = (("mug", "Mug", 1290, 1_000_000), ("pot", "Coffee pot", 4900, 1_000_000), ("moon", "The moon", 99_900, 3))
STOCK_UP = (
    "with new as (insert into goods values (%s, %s, %s, 'EUR') returning sku) insert into stock select sku, %s from new"
)


class Pipeline:
    """Its processes, in a lane. `workers` may be changed before they are started; `env` is told to all of them."""

    def __init__(self, lane: Lane, env: Mapping[str, str] = MappingProxyType({})) -> None:
        self._lane = lane
        self.gateway = lane.trusted("gateway", gateway.main, ledger="charges.jsonl", key="order_id")
        common = {"NAMESPACE": "{lane}", "GATEWAY_URL": self.gateway.url, "RECONCILE_AFTER_S": "20", **env}
        self._api = Worker("api", api.main, http=True, env=common)
        told = {"API_URL": self.url(self._api), "OVERDUE_S": "10"}
        self._page = Worker("page", page.main, http=True, env=common | told)
        self._gauges = Worker("observe", exporter.main, http=True, env=common)
        asks = {"GAUGES_URL": f"{self.url(self._gauges)}/metrics"}
        self._operator = Worker("operator", operators.main, http=True, env=common | asks)
        members = [Worker(name, main, env=common | {"GROUP_INSTANCE_ID": name}) for name, main in GROUPS.items()]
        retries = [Worker(f"retry-{name}", retry.main, env=common | {"RETRY_GROUP": name}) for name in GROUPS]
        self.workers = {
            worker.name: worker
            for worker in (
                self._page,
                self._api,
                Worker("relay", relay.main, env=common | {"RELAY_NAME": "relay"}),
                *members,
                *retries,
                Worker("reconcile", reconcile.main, env=common),
                self._gauges,
                self._operator,
            )
        }
        self.processes: dict[str, Process] = {}
        self._lives = dict.fromkeys(self.workers, 0)
        self._started: dict[str, float] = {}
        self._pauses: dict[str, float] = {}  # before the next start of who ends at its start
        self._due: dict[str, float] = {}  # of those who are dead
        self._frozen = False

    def url(self, worker: Worker) -> str:
        """Where it listens."""
        return f"http://{self._lane.port(worker, 0).address}"

    @property
    def addresses(self) -> dict[str, str]:
        """For people."""
        return {
            "page": f"{self.url(self._page)}/",
            "operators": f"{self.url(self._operator)}/",
            "API": f"{self.url(self._api)}/orders",
            "gauges": f"{self.url(self._gauges)}/metrics",
            "gateway": self.gateway.url,
            "its log": str(self.gateway.ledger.path),
            "Postgres": self._lane.postgres,
            "Kafka": self._lane.kafka,
            "logs": str(self._lane.supervisor.logs),
        }

    def stock_up(self) -> None:
        """Have something to sell."""
        for one in GOODS:
            self._lane.execute(STOCK_UP, one)

    def start(self) -> None:
        """Start all; return when API and page listen."""
        for name in self.workers:
            self.start_one(name)
        for worker in (self._api, self._page):
            self._lane.require_listening(worker, 0, self.processes[worker.name], Deadline(START_S))

    def start_one(self, name: str) -> None:
        """Start a worker, once more if it has ended."""
        life = self._lives[name]
        self._lives[name] += 1
        preload = {str(worker.call).partition(":")[0] for worker in self.workers.values()}
        self.processes[name] = self._lane.start(self.workers[name], incarnation=life, preload=sorted(preload))
        self._started[name] = time.monotonic()

    def restart_the_dead(self) -> None:
        """As a service manager would: who ends at its start is given more and more time."""
        now = time.monotonic()
        for name, process in self.processes.items():
            if process.exit is None:
                continue
            if name not in self._due:
                pause = self._pause_of(name, now)
                self._due[name] = now + pause
                tell(f"{name} {process.exit}; it is started again{f' in {pause:g} s' if pause else ''}")
            if now >= self._due[name]:
                del self._due[name]
                self.start_one(name)

    def _pause_of(self, name: str, now: float) -> float:
        if now - self._started[name] >= STEADY_S:
            self._pauses.pop(name, None)
            return 0.0
        before = self._pauses.get(name, FIRST_PAUSE_S / 2)
        self._pauses[name] = min(2 * before, LONGEST_PAUSE_S)
        return self._pauses[name]

    def order(self, sku: str = "") -> str | None:
        """Have somebody order something; which order that is, if that was answered."""
        what = sku or random.choice(["mug", "pot"])  # noqa: S311 - for show
        price = {name: price for name, _, price, _ in GOODS}.get(what, 100)
        order = {"customer_id": f"demo-{random.randrange(10)}", "sku": what, "quantity": 1}  # noqa: S311
        body = json.dumps(order | {"amount": price, "currency": "EUR"}).encode()
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid4())}
        request = urllib.request.Request(f"{self.url(self._api)}/orders", body, headers)  # noqa: S310 - our own
        try:
            with urllib.request.urlopen(request, timeout=2) as answer:  # noqa: S310
                return str(json.load(answer)["order_id"])
        except (URLError, OSError) as why:
            tell(f"an order was not answered: {why}")
            return None

    def break_it(self, name: str) -> None:
        """Kill it, or freeze it for a while."""
        if name != "gateway":
            tell(f"{name} is killed")
            self.processes[name].signal(signal.SIGKILL)
            return
        self._frozen = not self._frozen
        tell(f"the gateway is frozen for {BREAK_S:.0f} s" if self._frozen else "the gateway goes on")
        self.gateway.process.signal(signal.SIGSTOP if self._frozen else signal.SIGCONT)


def tell(text: str) -> None:
    """Say what happens, and when."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)  # noqa: T201 - this is what the command is for


def run(lane: Lane, options: argparse.Namespace) -> None:
    """Until it is interrupted."""
    pipeline = Pipeline(lane)
    if options.broken not in {None, "gateway", *pipeline.workers}:
        sys.exit(f"pipeline up: there is no {options.broken} to break: {', '.join(['gateway', *pipeline.workers])}")
    pipeline.stock_up()
    pipeline.start()
    for what, where in pipeline.addresses.items():
        print(f"  {what:<9} {where}", flush=True)  # noqa: T201
    tell("everything runs; Ctrl-C ends it")
    now = time.monotonic()
    next_order = now if options.orders else float("inf")
    next_break = now + BREAK_S if options.broken else float("inf")
    for now in iter(time.monotonic, None):
        pipeline.restart_the_dead()
        if now >= next_order:
            pipeline.order()
            next_order += 1 / options.orders
        if now >= next_break:
            pipeline.break_it(options.broken)
            next_break = now + BREAK_S
        time.sleep(max(0.0, min(LOOK_S, next_order - time.monotonic())))


def main(arguments: Sequence[str]) -> None:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m pipeline up", description=__doc__)
    parser.add_argument("--orders", type=float, metavar="PER_S", help="have demo orders placed, so many a second")
    parser.add_argument("--break", dest="broken", metavar="WORKER", help="kill this one every five seconds")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    schema = Path(__file__).with_name("schema.sql")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pipeline-") as directory,
            contextlib.closing(Live(sys.stderr)) as live,
            Session(Path(directory), progress=live.step) as session,
            session.lane(schema=schema, topics=TOPICS) as lane,
        ):
            run(lane, options)
    except KeyboardInterrupt:
        tell("everything is ended")
    except ChaosError as why:
        sys.exit(f"pipeline up: {why}")
