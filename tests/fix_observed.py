"""The pipeline with somebody who looks after it: gauges, a real Prometheus with the shipped rules, and the runbook.

The rules' thresholds are as they are shipped. How long something has to be so before there is an alert is a tenth of
that, but where `hastened` is not said; `promtool test rules` has the whole durations.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import operator
import os
import re
import shutil
import signal
import sys
import threading
import time
import urllib.request
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote, urlsplit

import psutil
from confluent_kafka import Producer

import pipeline
from chaos import MissingPart, group_drained, no_rows, nothing_lost, one_effect_per_key
from chaos.services.ports import lease_port
from chaos.waiting import Deadline, wait_until
from pipeline.observe.gauges import GROUPS
from pipeline.up import TOPICS, Pipeline
from tests.fix_pipeline import SCHEMA
from tests.fix_slot import outbox_slot
from tests.twins import mendable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos import Lane, Session
    from chaos.workers.process import Process

RULES = Path(pipeline.__file__).with_name("observe") / "alerts.yml"
RUNBOOK = Path(__file__).parents[1] / "docs" / "runbook.md"
PATIENCE_S = 60.0
FIRES_S = 120.0  # a transaction is given a minute before it counts as hanging
FOLLOWED_S = 180.0  # a command of the runbook, which has patience of its own; all that was ordered, when it is mended
EVALUATED_S = 0.5  # two evaluations of the rules
PER_S = 20  # orders
UNTOLD = "order_id not in (select order_id from mails)"
UNFINISHED = f"(select from orders where state <> 'confirmed' or {UNTOLD}) as unfinished"
MAILED_AGAIN = "select order_id from mails group by order_id having count(*) > 1"
SETTINGS = {"SESSION_TIMEOUT_MS": "2000", "RECONCILE_AFTER_S": "20", "RETRY_BUDGET": "5", "RETRY_PAUSE_S": "0.02"}


def hastened(rules: str) -> str:
    """The rules, with a tenth of what they wait before they fire."""
    return re.sub(r"(?m)^(\s+for: )(\d+)s$", lambda found: f"{found[1]}{int(found[2]) * 100}ms", rules)


class Prometheus:
    """A server of its own that scrapes one target, and evaluates rules four times a second."""

    def __init__(self, lane: Lane, target: str, rules: str) -> None:
        found = shutil.which("prometheus")
        if found is None:
            raise MissingPart("Prometheus", looked_for=["prometheus"], remedy="Install it: apt-get install prometheus.")
        directory = lane.files / "prometheus"
        directory.mkdir()
        (directory / "rules.yml").write_text(rules, encoding="utf-8")
        scrape = {"job_name": "pipeline", "static_configs": [{"targets": [target]}]}
        often = {"scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "250ms"}
        config = {"global": often, "rule_files": ["rules.yml"], "scrape_configs": [scrape]}
        (directory / "prometheus.json").write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
        self._port = lease_port()
        self._url = f"http://{self._port.address}"
        options = {"config.file": "prometheus.json", "storage.tsdb.path": "data", "log.level": "warn"}
        argv = [found, f"--web.listen-address={self._port.address}", *(f"--{name}={v}" for name, v in options.items())]
        self.process = lane.supervisor.spawn(f"{lane.name}-prometheus", argv, cwd=directory)
        wait_until("Prometheus to be ready", self._ready, Deadline(PATIENCE_S), logs=[self.process.log])

    def _ready(self) -> bool:
        self.process.require_running()
        with contextlib.suppress(OSError):
            return bool(self._ask("/-/ready"))
        return False

    def _ask(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self._url}{path}", timeout=5) as answer:  # noqa: S310 - our own
            return bytes(answer.read())

    def alerts(self, state: str = "firing") -> set[str]:
        """The names of the alerts that fire now, or are `pending`: it is so, but not for long enough."""
        told = json.loads(self._ask("/api/v1/alerts"))["data"]["alerts"]
        return {one["labels"]["alertname"] for one in told if one["state"] == state}

    def value(self, query: str) -> float | None:
        """What a query of one value has now."""
        told = json.loads(self._ask(f"/api/v1/query?query={quote(query)}"))["data"]["result"]
        return float(told[0]["value"][1]) if told else None

    def scraped(self, after: float) -> bool:
        """Whether the rules were evaluated on gauges that are from later than that, in Unix seconds."""
        at = self.value("timestamp(pipeline_source_up{source='postgres'})")
        return at is not None and at > after + EVALUATED_S

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self._port.close()


class Customers(threading.Thread):
    """Order at a steady rate until they are asked to stop."""

    def __init__(self, order: Callable[[], object]) -> None:
        super().__init__(daemon=True)
        self._order, self._enough = order, threading.Event()

    def run(self) -> None:
        """One order after the other."""
        began = time.monotonic()
        number = 0
        while not self._enough.wait(max(0.0, began + number / PER_S - time.monotonic())):
            self._order()
            number += 1

    def stop(self) -> None:
        """Return when there will be no more."""
        self._enough.set()
        self.join()


class Shop(Pipeline):
    """A pipeline that knows which orders it has accepted."""

    def __init__(self, lane: Lane, env: Mapping[str, str]) -> None:
        super().__init__(lane, env)
        self.accepted: set[str] = set()

    def order(self, sku: str = "") -> str | None:
        """As it does."""
        if (order_id := super().order(sku)) is not None:
            self.accepted.add(order_id)
        return order_id


class Site(NamedTuple):
    """A pipeline, who observes it, and the environment of an operator's shell."""

    lane: Lane
    pipeline: Shop
    prometheus: Prometheus
    env: Mapping[str, str]
    server: Process  # Postgres
    customers: Customers
    left: contextlib.ExitStack  # what is undone when the site is given up

    def fires(self, *alerts: str, within_s: float = FIRES_S) -> None:
        """Wait until these do, whatever else does."""
        left = {*alerts}

        def fired() -> bool:
            left.difference_update(self.prometheus.alerts())
            return not left

        wait_until(f"alert {' and '.join(alerts)} to fire", fired, Deadline(within_s), every=0.1)

    def quiet(self) -> None:
        """Wait until no alert fires."""
        wait_until("no alert to fire", lambda: not self.prometheus.alerts(), Deadline(PATIENCE_S), every=0.1)

    def healthy(self) -> bool:
        """Whether the runbook's checklist would pass this moment."""
        [block] = commands("Verification")
        return self._run("glance", re.sub(r" --wait \d+", "", block)).wait(Deadline(FOLLOWED_S)).status == 0

    def follow(self, section: str, *, without: str | None = None) -> None:
        """Do what the runbook says there, word for word; or all but the block in which that is."""
        blocks = commands(section)
        chosen = [block for block in blocks if without is None or without not in block]
        assert without is None or len(chosen) == len(blocks) - 1
        for number, block in enumerate(chosen):
            process = self._run(f"{section}-{number}", block)
            ended = process.wait(Deadline(FOLLOWED_S))
            assert ended.status == 0, f"runbook, {section}: {block}\n{ended}\n{process.log.read_text()}"

    def _run(self, name: str, block: str) -> Process:
        shell = ["bash", "-euo", "pipefail", "-c", block]
        return self.lane.supervisor.spawn(f"{self.lane.name}-{name}", shell, env=dict(self.env))

    def confirmed_s(self) -> float:
        """How long an order that is placed now takes."""
        began = time.monotonic()
        order_id = self.pipeline.order()
        query = f"select from orders where order_id = '{order_id}' and state = 'confirmed'"
        wait_until("an order to be confirmed", lambda: bool(self.lane.look(query)), Deadline(PATIENCE_S), every=0.005)
        return time.monotonic() - began

    def judge(self, within_s: float = FOLLOWED_S) -> None:
        """Every order was confirmed, charged once and mailed once, by the time that nothing is on its way.

        Nobody orders any more. The charges are those of the gateway's own log.
        """
        self.customers.stop()
        settled = [no_rows(UNFINISHED), *(group_drained(f"{{lane}}.{group}", "orders") for group in GROUPS)]

        def left() -> list[str]:
            return [told for one in settled if (told := one.outstanding(self.lane))]

        every_order = "every order to be confirmed, and a mail to say so"
        wait_until(every_order, left, Deadline(within_s), accept=operator.not_, every=0.1)
        orders = [order_id for (order_id,) in self.lane.look("select order_id from orders")]
        assert self.pipeline.accepted <= {*orders}
        charges = self.pipeline.gateway.ledger
        found = [*one_effect_per_key(charges).check(orders), *nothing_lost(charges).check(orders)]
        assert not found, "\n".join(map(str, found))
        assert not self.lane.look(MAILED_AGAIN)

    def published_ago(self, seconds: float) -> None:
        """An order whose event has been on the topic for so long; the relay is frozen, and publishes it once more."""
        order_id = self.pipeline.order()
        [(payload,)] = self.lane.look(f"select payload from outbox where order_id = '{order_id}'")  # noqa: S608 - ours
        producer = Producer({"bootstrap.servers": self.lane.kafka})
        at_ms = int((time.time() - seconds) * 1000)
        producer.produce(f"{self.lane.name}.orders", json.dumps(payload), order_id, timestamp=at_ms)
        assert producer.flush(PATIENCE_S) == 0

    def end_what_was_started(self) -> None:
        """Kill what the commands have left running."""
        for one in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if one.environ().get("NAMESPACE") == self.lane.name and one.environ().get("LOGS") is not None:
                    one.kill()


def commands(section: str) -> list[str]:
    """The blocks of shell commands in a section of the runbook."""
    text = RUNBOOK.read_text(encoding="utf-8")
    [found] = re.findall(rf"(?ms)^## {section}\n(.*?)(?=^## |\Z)", text)
    return re.findall(r"(?ms)^```sh\n(.*?)^```", found)


@contextlib.contextmanager
def observed(
    session: Session,
    *,
    workers: Mapping[str, Callable[[], object]] = MappingProxyType({}),
    cdc: bool = False,
    rules: Callable[[str], str] = hastened,
) -> Iterator[Site]:
    """A pipeline with orders coming in, observed. What is broken in it: the table `broken` of `tests.twins.mendable`.

    Args:
        session: the test run.
        workers: others in the place of those with their names.
        cdc: whether the relay reads the log.
        rules: what is made of the shipped ones.
    """
    with contextlib.ExitStack() as stack:
        lane = stack.enter_context(session.lane(schema=SCHEMA, topics=TOPICS))
        lane.execute(mendable.TABLE)
        settings = SETTINGS
        if cdc:
            stack.enter_context(outbox_slot(lane))
            settings = SETTINGS | {"RELAY": "cdc", "SLOT": lane.name, "HEARTBEAT_S": "0.5", "RELAY_LEASE_S": "2"}
        made = Shop(lane, settings)
        for name, main in workers.items():
            made.workers[name] = dataclasses.replace(made.workers[name], run=main)
        made.stock_up()
        made.start()
        server = session.services.postgres.process
        assert server is not None
        prometheus = Prometheus(lane, urlsplit(made.addresses["gauges"]).netloc, rules(RULES.read_text("utf-8")))
        shell = environment(lane, made, Path(psutil.Process(server.pid).exe()).parent) | settings
        site = Site(lane, made, prometheus, shell, server, Customers(made.order), contextlib.ExitStack())
        site.customers.start()
        try:
            yield site
        finally:
            server.signal(signal.SIGCONT)  # other drills use it
            site.customers.stop()
            site.left.close()
            prometheus.close()
            site.end_what_was_started()


def environment(lane: Lane, made: Pipeline, programs: Path) -> dict[str, str]:
    """Of an operator's shell; `programs` has psql."""
    path = [str(Path(sys.executable).parent), str(programs), os.environ["PATH"]]
    return os.environ | {
        "DATABASE_URL": str(lane.postgres),
        "KAFKA_BOOTSTRAP_SERVERS": str(lane.kafka),
        "NAMESPACE": lane.name,
        "GATEWAY_URL": made.gateway.url,
        "GAUGES_URL": made.addresses["gauges"],
        "GAUGES_PORT": str(urlsplit(made.addresses["gauges"]).port),
        "LOGS": str(lane.supervisor.logs),
        "PATH": os.pathsep.join(path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
