"""An eye on the slot of the CDC relay: `python -m pipeline watch` logs once a second how much of the log it keeps.

It is a worker of its own, as a relay that is dead gives no alarm. Alarms come while something can be done: with half of
`max_slot_wal_keep_size` left, louder with a quarter or where Postgres has said `unreserved`, and when the slot is lost.
What to do: have the relay run, or find out why it confirms nothing; when the slot is lost, see `pipeline.publish.slot`.
"""

from __future__ import annotations

import json
import logging
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row

from pipeline.runtime import Outage, Stop, Unavailable, address, begin, first_line
from pipeline.settings import CdcSettings, load

log = logging.getLogger(__name__)

LOOK_S = 1.0
ENOUGH, LITTLE = 0.5, 0.25  # of the limit: what may be left before an alarm, and before one that cannot wait

STATE = """
    select active, wal_status, invalidation_reason, (pg_current_wal_lsn() - restart_lsn)::bigint as retained_bytes,
        safe_wal_size as safe_bytes, nullif(setting::bigint, -1) * 1024 * 1024 as limit_bytes
    from pg_replication_slots, pg_settings where slot_name = %s and name = 'max_slot_wal_keep_size'
"""


class State(NamedTuple):
    """What Postgres says of a slot. Bytes are of the log; None where there is no limit, or no more of it."""

    active: bool
    wal_status: str
    invalidation_reason: str | None
    retained_bytes: int | None
    safe_bytes: int | None
    limit_bytes: int | None

    @property
    def lost(self) -> bool:
        """Whether Postgres has given it up."""
        return self.wal_status == "lost"

    def alarm(self) -> tuple[int, str] | None:
        """How loud, as a level of `logging`, and what about; None if all is well."""
        if self.lost:
            why = self.invalidation_reason or "no reason given"
            return logging.CRITICAL, f"The slot is lost ({why}); events wait in the outbox: run python -m pipeline slot"
        if self.limit_bytes is None:
            return logging.WARNING, "The slot may fill the disk: set max_slot_wal_keep_size"
        left = (self.safe_bytes or 0) / self.limit_bytes
        if left >= ENOUGH and self.wal_status != "unreserved":
            return None
        who = "its relay is there and confirms nothing" if self.active else "nobody reads it"
        level = logging.ERROR if left < LITTLE or self.wal_status == "unreserved" else logging.WARNING
        return level, f"The slot will be lost in {self.safe_bytes:,} bytes of log; {who}"


def state(connection: psycopg.Connection, slot: str) -> State | None:
    """The slot's state, if there is such a slot."""
    return connection.cursor(row_factory=class_row(State)).execute(STATE, [slot]).fetchone()


def main() -> None:
    """Say once a second what the slot keeps, and give alarm, until SIGTERM."""
    begin("watch")
    stop, settings, outage = Stop(), load(CdcSettings), Outage("Nobody looks at the slot; trying again")
    while not stop.asked:
        try:
            with psycopg.connect(settings.database_url, autocommit=True, connect_timeout=3) as connection:
                while not stop.asked:
                    tell(settings.slot, state(connection, settings.slot))
                    outage.over()
                    stop.wait(LOOK_S)
        except psycopg.OperationalError as why:
            outage.wait(stop, Unavailable(f"Postgres at {address(settings.database_url)}", first_line(why)))


def tell(slot: str, found: State | None) -> None:
    """Log a state, as JSON, and the alarm that it gives."""
    if found is None:
        log.critical("There is no slot %r: run python -m pipeline slot.", slot)
        return
    log.info("%s", json.dumps({"slot": slot, **found._asdict()}))
    if (alarm := found.alarm()) is not None:
        log.log(*alarm)
