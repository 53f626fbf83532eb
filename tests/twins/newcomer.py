"""A member of the payment group that joins and leaves again for each row of the table `visits`: a rebalance on demand.

It handles no message. What it is given while it is there is committed by nobody, and goes to the others when it leaves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from confluent_kafka import Consumer

from chaos.waiting import Deadline, wait_until
from pipeline.route.topics import ORDERS, consumer_config, full_name
from pipeline.runtime import Database, Stop, Unavailable, begin
from pipeline.settings import ConsumerSettings, load
from tests.thin.payment import Payment

if TYPE_CHECKING:
    from chaos import Run

TABLE = "create table if not exists visits (id bigint generated always as identity primary key)"
LOOK_S = 0.01  # between looks at an empty table
PATIENCE_S = 10.0


def invite(run: Run, order_id: str) -> None:
    """Have it join while this order's charge is under way, unless that is over."""
    under_way = """
        select 1 from orders where order_id = %s and state <> 'pending'
        union all
        select 1 from pg_stat_activity
        where datname = current_database() and state = 'idle in transaction' and query like 'insert into inbox%%'
    """
    wait_until("a charge to be under way", lambda: run.execute(under_way, order_id), Deadline(PATIENCE_S), every=0.002)
    run.execute("insert into visits default values")


def main() -> None:
    """Look for invitations until SIGTERM."""
    begin("newcomer")
    stop = Stop()
    settings = load(ConsumerSettings)
    database = Database(settings.database_url)
    while not stop.asked:
        try:
            with database.connection() as connection:
                invitation = connection.execute("select id from visits order by id limit 1").fetchone()
            if invitation is not None:
                visit(settings, stop)
                with database.connection() as connection:  # only now: one who dies on a visit comes again
                    connection.execute("delete from visits where id = %s", invitation)
        except Unavailable:
            pass
        stop.wait(LOOK_S)


def visit(settings: ConsumerSettings, stop: Stop) -> None:
    """Join the group, stay until the rebalance is over, leave."""
    there = []
    consumer = Consumer(consumer_config(settings, full_name(settings, Payment.name)))
    try:
        consumer.subscribe([full_name(settings, ORDERS)], on_assign=lambda *_: there.append(True))
        while not there and not stop.asked:
            consumer.poll(0.02)
    finally:
        consumer.close()
