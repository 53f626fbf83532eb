"""A sign of life that a CDC relay puts into the log, and finds there again: how much of the outbox is published.

The relay marks no rows. What it has published is known by the heartbeats instead: each is a transaction whose message
says which transactions had all ended when it began (the xmin of its snapshot). Their commits are before its own in the
log, so when it is confirmed, they were. `relay_progress` keeps the last such word; rows of older transactions can be
removed, are not sent again when a lost slot is recovered, nor by a polling relay that takes over.

It is a transaction so that it has a place in the order of commits, and so that an idle database has commits to confirm:
one that only other tables are written in would otherwise keep its log for a slot that is sent nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from pipeline.publish.outbox import Removal

if TYPE_CHECKING:
    from pipeline.publish.pgoutput import Message
    from pipeline.runtime import Database
    from pipeline.settings import CdcSettings

PREFIX = "onecharge.heartbeat"
BEAT = """
    with kept as (
        insert into relay_progress (slot, below) select %(slot)s, %(below)s::xid8 where %(below)s::xid8 is not null
        on conflict (slot) do update set below = excluded.below, server = excluded.server, at = now()
    )
    select pg_logical_emit_message(true, %(prefix)s, pg_snapshot_xmin(pg_current_snapshot())::text)
"""
REMOVE = """
    delete from outbox where id in (
        select id from (select id, xid, created_at from outbox order by id limit %s) as oldest
        where xid < %s::xid8 and created_at < now() - make_interval(secs => %s)
    )
"""


class Heartbeat:
    """Of one relay: what it has sent, and what has come back."""

    def __init__(self, settings: CdcSettings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._due = time.monotonic() + settings.heartbeat_s
        self._removal = Removal(REMOVE)
        self._below: str | None = None
        self._heard: list[tuple[int, str]] = []

    def close(self) -> None:
        """Leave Postgres alone."""
        self._database.close()

    def begin_anew(self) -> None:
        """What was not confirmed comes again, perhaps from another server."""
        self._heard.clear()
        self._below = None

    def heard(self, message: Message, commit_lsn: int) -> None:
        """A message has come in a transaction that was committed there."""
        if message.transactional and message.prefix == PREFIX and message.content.isdigit():
            self._heard.append((commit_lsn, message.content.decode()))

    def beat(self, confirmed: int) -> None:
        """Do what is due, now that everything before this place is confirmed.

        Raises:
            Unavailable: Postgres does not answer.
        """
        while self._heard and self._heard[0][0] < confirmed:
            _, self._below = self._heard.pop(0)
        now = time.monotonic()
        if now < self._due and self._below is None:
            return
        with self._database.connection() as connection:
            if now >= self._due:
                asked = {"slot": self._settings.slot, "below": self._below, "prefix": PREFIX}
                connection.execute(BEAT, asked)
                self._due = now + self._settings.heartbeat_s
            if self._below is not None:
                self._removal.some(connection, self._below, self._settings.outbox_keep_s)
