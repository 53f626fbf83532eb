"""The gauges: their names, what they mean, and which hop they are about. Documents and alerts are held against it.

All begin with `pipeline_`. Ages are seconds, sizes bytes, and what is absent is not known: a source has only those of
its gauges that it has answered this time, and `source_up` 0 unless that is all. So nothing looks healthy because it was
healthy once.

`GAUGES` are those of `python -m pipeline observe`; `OF_A_PROCESS`, those that a process has at its METRICS_PORT.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

PREFIX = "pipeline_"
GROUPS = ("payment", "inventory", "notification")


class Gauge(NamedTuple):
    """One of them. Those with a signal are what to look at first; the others tell why.

    A value above `above` or below `below` is trouble: there is an alert for it, in alerts.yml, for some a while later.
    With `only`, that holds only where the last label has one of these values.
    """

    hop: str
    about: str
    labels: tuple[str, ...] = ()
    signal: str = ""
    above: float = inf
    below: float = -inf
    only: tuple[str, ...] = ()

    def is_trouble(self, value: float, labels: tuple[str, ...]) -> bool:
        """Whether somebody should look."""
        return (not self.only or labels[-1] in self.only) and not self.below <= value <= self.above


HOPS = ("write", "publish", "route", "process", "quarantine", "display")


GAUGES = {
    "source_up": Gauge(
        "observe",
        "Whether Postgres, Kafka, or both for dead letters, have answered this time, and all they were asked.",
        ("source",),
        below=1,
    ),
    # write
    "pending_orders": Gauge("write", "Orders without an outcome; 10,000 stands for more."),
    "pending_oldest_seconds": Gauge("write", "Age of the oldest order without an outcome.", above=120),
    "order_latency_seconds": Gauge(
        "write",
        "From an order to its outcome, of those with an outcome in the last minute: median, 95th percentile, longest. "
        "Of fewer, where OUTBOX_KEEP_S is shorter than that.",
        ("quantile",),
        "end-to-end latency",
        above=10,
        only=("0.95",),
    ),
    "oldest_transaction_seconds": Gauge(
        "write",
        "Age of the oldest transaction of a client, open or prepared, in any database of the server. Absent without "
        "pg_monitor, or pg_read_all_stats at least: others' are not seen then.",
        above=60,
    ),
    # publish
    "unpublished_events": Gauge("publish", "Rows of the outbox that no relay has published; 10,000 stands for more."),
    "unpublished_oldest_seconds": Gauge(
        "publish", "Age of the oldest of them; with CDC the relay's silence.", above=30
    ),
    "slot_retained_bytes": Gauge("publish", "What Postgres keeps of its log for a slot.", ("slot",), "slot lag"),
    "slot_safe_bytes": Gauge(
        "publish",
        "How much more it may write before the slot is lost. Absent without max_slot_wal_keep_size.",
        ("slot",),
    ),
    "slot_left_ratio": Gauge("publish", "The same, as a part of what it keeps at most.", ("slot",), below=0.5),
    "slot_status": Gauge(
        "publish",
        "1 for what Postgres says of it: reserved, extended, unreserved, lost.",
        ("slot", "status"),
        "slot lag",
        above=0,
        only=("unreserved", "lost"),
    ),
    "slot_active": Gauge("publish", "Whether somebody reads it.", ("slot",), below=1),
    # route
    "topic_partitions": Gauge("route", "Partitions of a topic. 0: there is no such topic yet.", ("topic",)),
    "held_back_events": Gauge(
        "route",
        "Events on a topic that no group is given, as a transaction of a producer is open.",
        ("topic",),
    ),
    "held_back_seconds": Gauge("route", "Age of the first of them; it is in the groups' lag, too.", ("topic",)),
    # process
    "consumer_lag_events": Gauge(
        "process",
        "Events of a topic that a group has not committed. Below 0: the topic was made anew.",
        ("group", "topic"),
        "consumer lag",
        below=0,
    ),
    "consumer_lag_seconds": Gauge(
        "process",
        "Age of the first event that it has not committed, or is not given (see held back).",
        ("group", "topic"),
        "consumer lag",
        above=30,
    ),
    "consumer_members": Gauge("process", "Members of a group. 0: nobody handles anything.", ("group",), below=1),
    # quarantine
    "parked_orders": Gauge("quarantine", "Orders whose events wait, tried again or given up.", ("group", "fate")),
    "parked_oldest_seconds": Gauge(
        "quarantine",
        "How long the first of them has waited. What is given up waits for its dead letter.",
        ("group", "fate"),
        above=600,
        only=("tried again",),
    ),
    "parked_events": Gauge(
        "quarantine", "Events that wait; a group stops at its PARKING_LIMIT.", ("group",), above=5000
    ),
    "dead_letters": Gauge("quarantine", "Letters in a group's dead-letter topic.", ("group",), "DLQ depth"),
    "dead_letters_waiting": Gauge(
        "quarantine", "Those that were neither sent back nor left for good.", ("group",), "DLQ depth", above=0
    ),
}

OF_A_PROCESS = {
    "breaker_open": Gauge(
        "process",
        "1 from a server's first failure to its first answer: the work rests, but for one attempt at a time, at most a "
        "second apart. What becomes of it meanwhile is the label.",
        ("work",),
    ),
    "waiting_seconds": Gauge("process", "For how long that has been so; 0 if it is not.", ("work",)),
}
