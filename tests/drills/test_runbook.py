"""Something is broken, its alert fires, somebody does what the runbook says, and everything is well.

The runbook's commands are read from the page and carried out word for word. What is for people to do, to mend a cause,
is done here. That the checklist at the end can fail is seen in each of these, before anything is mended. At last no
order is lost, and none is charged twice, by the gateway's log.
"""

from __future__ import annotations

import ast
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition  # noqa: TID251 - to put, not to ask
from confluent_kafka.cimpl import NewTopic

from chaos import NotInTime
from chaos.waiting import Deadline, wait_until
from pipeline.observe.gauges import GROUPS
from tests.fix_observed import FIRES_S, PATIENCE_S, PER_S, RULES, RUNBOOK, commands, observed
from tests.twins import mendable, observing, payment_twins

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from chaos import Lane, Session
    from tests.fix_observed import Site

pytestmark = pytest.mark.drills

BREAK = "insert into broken (what) values (%s)"
MEND = "update broken set mended = true"
STOCK_UP = "insert into stock values (%s, 1000000)"
FLOOD = """
    with placed as (
        select gen_random_uuid() as event_id, 'order.placed' as type, gen_random_uuid()::text as order_id, 1 as seq,
            'c-1' as customer_id, %s as sku, 1 as quantity, 100 as amount, 'EUR' as currency
        from generate_series(1, 5100)
    ), ordered as (
        insert into orders (order_id, customer_id, sku, quantity, amount, currency)
        select order_id, customer_id, sku, quantity, amount, currency from placed
    ), waiting as (
        insert into parked_orders (consumer_group, order_id, attempts, next_attempt_at, reason)
        select %s, order_id, 1, now(), 'likewise' from placed limit 5000
    )
    insert into outbox (event_id, order_id, seq, type, payload)
    select event_id, order_id, seq, type, row_to_json(placed) from placed
"""
PUBLISHED_IS_PAID = """
    select where not exists (
        select from orders join outbox using (order_id) where payment is null and published_at is not null
    )
"""
# By a relay of either kind: one that reads the log marks nothing, and says how far it has come.
UNPUBLISHED = "select from outbox_pending where xid >= coalesce((select max(below) from published_below), '0')"
LONG_AGO = "update {} set {} = {} - interval '11 minutes' where {}"
SOON_S = 30.0  # a server is away, and two more scrapes


def kill(site: Site, *names: str) -> None:
    """As a machine that is gone."""
    for name in names:
        site.pipeline.processes[name].kill()


def freeze(site: Site, name: str) -> None:
    """As a process that hangs."""
    site.pipeline.processes[name].signal(signal.SIGSTOP)


def thaw(site: Site, name: str) -> None:
    """It goes on."""
    site.pipeline.processes[name].signal(signal.SIGCONT)


def long_ago(site: Site, table: str, column: str, which: str = "true") -> None:
    """Have something happened eleven minutes earlier, that one would have to wait for otherwise."""
    site.lane.execute(LONG_AGO.format(table, column, column, which))


def seen(site: Site, query: str) -> None:
    """Wait until a query has rows."""
    wait_until(query, lambda: bool(site.lane.look(query)), Deadline(PATIENCE_S), every=0.01)


def order_broken_goods(site: Site) -> str:
    """An order that cannot be handled before its goods are mended."""
    sku = f"broken-{uuid4()}"
    site.lane.execute(STOCK_UP, [sku])
    site.lane.execute(BREAK, [sku])
    site.pipeline.order(sku)
    return sku


def postgres_hangs(site: Site) -> None:
    """Who is connected does not notice; nobody else gets in."""
    site.server.signal(signal.SIGSTOP)


def postgres_is_back(site: Site) -> None:
    """It goes on."""
    site.server.signal(signal.SIGCONT)


def an_old_event_waits(site: Site) -> None:
    """The member of a group hangs, and what nobody handles was published a while ago."""
    freeze(site, "relay")
    seen(site, PUBLISHED_IS_PAID)
    freeze(site, "payment")
    site.published_ago(90)
    thaw(site, "relay")


def the_topic_is_made_anew(site: Site) -> None:
    """While nobody reads it, nor orders much; some events were not handled by then.

    Who deletes a topic has Kafka delete what groups have committed of it. That is kept here, as it is where a log was
    lost, or a topic comes back from a copy that is older.
    """
    site.customers.stop()
    kill(site, *GROUPS)
    for _ in range(5):
        site.pipeline.order()
    seen(site, f"select where not exists ({UNPUBLISHED})")
    admin, topic = site.lane.kafka_admin, f"{site.lane.name}.orders"
    names = [f"{site.lane.name}.{group}" for group in GROUPS]
    kept = [ConsumerGroupTopicPartitions(group, offsets(site.lane, group)) for group in names]
    freeze(site, "relay")

    def empty() -> bool:
        return not any(told.result().members for told in admin.describe_consumer_groups(names).values())

    wait_until("the groups to have no members", empty, Deadline(PATIENCE_S))
    admin.delete_topics([topic])[topic].result()
    wait_until("the topic to be gone", lambda: topic not in admin.list_topics().topics, Deadline(PATIENCE_S))
    admin.create_topics([NewTopic(topic, 4, 1)])[topic].result()
    for group in kept:

        def restored(group: ConsumerGroupTopicPartitions = group) -> bool:
            told = admin.alter_consumer_group_offsets([group])[group.group_id].result()
            return bool(told.topic_partitions) and not any(one.error for one in told.topic_partitions)

        wait_until(f"{group.group_id} to have its offsets", restored, Deadline(PATIENCE_S))
    thaw(site, "relay")


def offsets(lane: Lane, group: str) -> list[TopicPartition]:
    """What a group has committed."""
    committed = lane.committed(group, lane.partitions("orders"))
    return [TopicPartition(*place, offset) for place, offset in committed.items()]


def letters_are_dead(site: Site) -> None:
    """One that nobody can read, and one that cannot be handled before its goods are mended."""
    site.lane.produce("orders", b"\xff", key=b"poison")
    order_broken_goods(site)


def parking_fills_while_a_transaction_hangs(site: Site) -> None:
    """Five thousand orders need what is broken, and nobody tries again, and two transactions are left, one prepared.

    Most of the orders are said to wait already. Their events are parked behind, by hundreds; to try and park each alone
    takes a slow machine minutes, and is in `tests/drills/test_flood.py`.
    """
    hanging = psycopg.connect(site.lane.postgres)
    site.left.callback(hanging.close)
    hanging.execute("select 1")
    site.left.callback(roll_back_what_is_prepared, site)
    with psycopg.connect(site.lane.postgres, autocommit=True) as prepared:
        prepared.execute("begin")
        prepared.execute(f"prepare transaction '{site.lane.name}'")
    kill(site, "retry-inventory")
    site.lane.execute(FLOOD, [order_broken_goods(site), f"{site.lane.name}.inventory"])


def roll_back_what_is_prepared(site: Site) -> None:
    """If nobody has: a database with a prepared transaction cannot be dropped."""
    for (gid,) in site.lane.look("select gid from pg_prepared_xacts where database = current_database()"):
        site.lane.execute(f"rollback prepared '{gid}'")


def an_order_is_parked_for_long(site: Site) -> None:
    """Who should try it again is dead."""
    kill(site, "retry-inventory")
    order_broken_goods(site)
    seen(site, "select from parked_orders")
    long_ago(site, "parked_orders", "since")


def orders_were_late(site: Site) -> None:
    """The relay hung; it is over by now. They stay more than one of twenty for the minute that is looked at."""
    freeze(site, "relay")
    for _ in range(PER_S * 6):
        site.pipeline.order()
    long_ago(site, "orders", "created_at", "state = 'pending'")
    thaw(site, "relay")


def a_confirmation_is_lost(site: Site) -> None:
    """What was charged cannot be kept, and nobody asks the gateway."""
    kill(site, "reconcile")
    freeze(site, "relay")
    order_id = site.pipeline.order()
    site.lane.execute(BREAK, [order_id])
    thaw(site, "relay")
    seen(site, "select from parked_orders where next_attempt_at is null")
    site.lane.execute(MEND)
    long_ago(site, "orders", "created_at", f"order_id = '{order_id}'")


def nobody_publishes(site: Site) -> None:
    """The relay is dead."""
    kill(site, "relay")
    site.pipeline.order()
    long_ago(site, "outbox", "created_at", "published_at is null")


def mend(site: Site) -> None:
    """Mend the cause."""
    site.lane.execute(MEND)


class Trouble(NamedTuple):
    """What breaks, which alerts fire, and what somebody does before they follow the runbook."""

    breaks: Callable[[Site], object]
    alerts: tuple[str, ...]
    mends: Callable[[Site], object] = lambda _: None
    made: Mapping[str, Any] = {}  # how the site is
    within_s: float = FIRES_S  # there are the alerts

    @property
    def name(self) -> str:
        """For people."""
        return "-".join([*self.alerts, *(["cdc"] if self.made.get("cdc") else [])])


GOODS = {"workers": {"inventory": mendable.main, "retry-inventory": mendable.retries}}
BOOKS = {"workers": {"payment": mendable.books, "retry-payment": mendable.books_retries}}
CDC = {"cdc": True}
TROUBLES = [
    Trouble(lambda site: kill(site, "observe"), ("NobodyObserves",)),
    Trouble(postgres_hangs, ("SourceDown",), postgres_is_back, within_s=SOON_S),
    Trouble(an_old_event_waits, ("ConsumerLag",)),
    Trouble(lambda site: kill(site, "payment"), ("GroupVanished",)),
    Trouble(the_topic_is_made_anew, ("TopicMadeAnew",)),
    Trouble(the_topic_is_made_anew, ("TopicMadeAnew",), lambda site: kill(site, "relay"), CDC),
    Trouble(letters_are_dead, ("DeadLetters",), mend, GOODS),
    Trouble(parking_fills_while_a_transaction_hangs, ("TransactionHangs", "ParkingFills"), mend, GOODS),
    Trouble(an_order_is_parked_for_long, ("ParkedForLong",), mend, GOODS),
    Trouble(orders_were_late, ("OrdersAreSlow",)),
    Trouble(a_confirmation_is_lost, ("OrdersArePending", "DeadLetters"), made=BOOKS),
    Trouble(nobody_publishes, ("OutboxGrows",)),
    Trouble(lambda site: kill(site, "relay"), ("SlotUnread",), made=CDC),
]


@pytest.fixture
def site(onecharge: Session, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A pipeline in which an order was confirmed and the checklist has passed by now, made as the trouble needs it."""
    with observed(onecharge, **getattr(request, "param", {})) as site:
        site.confirmed_s()
        site.quiet()
        site.follow("Verification")
        yield site


@pytest.mark.parametrize(
    ("site", "trouble"),
    [pytest.param(one.made, one, id=one.name) for one in TROUBLES],
    indirect=["site"],
)
def test_the_runbook(site: Site, trouble: Trouble) -> None:
    """The alerts fire, the checklist fails; after the runbook it passes, nothing fires, and no order is lost."""
    trouble.breaks(site)
    site.fires(*trouble.alerts, within_s=trouble.within_s)
    assert not site.healthy()
    site.follow("Triage")
    trouble.mends(site)
    for alert in trouble.alerts:
        site.follow(alert)
    site.follow("Verification")
    assert site.confirmed_s() < 1
    site.quiet()
    site.judge()


def followed() -> dict[str, set[str]]:
    """Which sections of the runbook the drills follow to the end, by their files."""
    found: dict[str, set[str]] = {}
    for file in Path(__file__).parent.glob("test_*.py"):
        calls = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        whole = [one for one in calls if isinstance(one.func, ast.Attribute) and one.func.attr == "follow" and one.args]
        names = [one.args[0].value for one in whole if isinstance(one.args[0], ast.Constant) and not one.keywords]
        if names:
            found[file.name] = {str(name) for name in names}
    found[Path(__file__).name] |= {alert for one in TROUBLES for alert in one.alerts}
    return found


def test_each_section_is_followed() -> None:
    """Each section that has commands is followed by a drill, and those of all alerts are; the page names the drills."""
    text = RUNBOOK.read_text(encoding="utf-8")
    by_file = followed()
    sections = set().union(*by_file.values())
    assert sections == {one for one in re.findall(r"(?m)^## (\w+)$", text) if commands(one)}
    assert {*re.findall(r"- alert: (\w+)", RULES.read_text(encoding="utf-8"))} <= sections
    assert all(f"`tests/drills/{name}`" in text for name in by_file)


@pytest.mark.parametrize(("site", "stopped"), [({}, ()), (CDC, ("relay",))], indirect=["site"], ids=["polling", "cdc"])
def test_what_is_not_published_again_is_found(site: Site, stopped: tuple[str, ...]) -> None:
    """Whoever leaves that step out has every gauge at rest, and orders that nobody looks at."""
    the_topic_is_made_anew(site)
    site.fires("TopicMadeAnew")
    kill(site, *stopped)
    site.follow("TopicMadeAnew", without="update outbox")
    site.confirmed_s()
    with pytest.raises(NotInTime, match=r"unfinished has \d+ rows"):
        site.judge(within_s=5)


@pytest.mark.parametrize("site", [{"workers": {"payment": payment_twins.charges_what_comes}}], indirect=True)
def test_what_is_charged_again_is_found(site: Site) -> None:
    """A group that does not know what it has charged charges what is published again."""
    the_topic_is_made_anew(site)
    site.fires("TopicMadeAnew")
    site.follow("TopicMadeAnew", without="nohup python -m pipeline $group")
    for group in GROUPS:
        site.pipeline.start_one(group)
    with pytest.raises(AssertionError, match="one effect per key"):
        site.judge()


@pytest.mark.parametrize("site", [{"workers": {"observe": observing.main}}], indirect=True)
def test_gauges_that_remember_are_found(site: Site) -> None:
    """Who tells of a server what it was like before it was away passes the checklist meanwhile, and no alert fires."""
    postgres_hangs(site)
    away = time.time()
    with pytest.raises(NotInTime, match="SourceDown"):
        site.fires("SourceDown", within_s=SOON_S)
    site.follow("Verification")
    assert site.prometheus.scraped(away + SOON_S / 2)
    assert not site.prometheus.alerts()
