"""Hop 2: every event in the outbox reaches Kafka at least once, and per order in sequence."""

from pipeline.hops import Hop

HOP = Hop(
    guarantee="Every event in the outbox reaches Kafka at least once, and per order in sequence.",
    defence="Polling: claim, produce, await every delivery report, mark. CDC: produce, await, confirm the log's place.",
    breaks="A crash between produce and mark, or confirm; a report that proves nothing; a slot that is lost.",
    duplicate="What was produced and not marked or confirmed is produced again; with EXACTLY_ONCE=1 only by `slot`.",
    removed="Not here: each consumer group's inbox, of which no row is ever removed.",
    drills=("relays", "from_the_log", "once_on_the_topic", "lost_slot", "slot_alarm", "a_report_without_an_offset"),
)
