"""A connection that reads a logical slot: what the walsender sends, in order, and what it is told to be done with.

One connection at a time can read a slot; it is asked for what was committed behind the last confirmed place, so what is
received and never confirmed comes again. Nothing in here confirms by itself: `Stream.report` says what `confirm` was
last told, as often as it is called. That has to be often, more so while nothing is read: a walsender that hears nothing
for ``wal_sender_timeout`` (60 s by default) hangs up. It is asked to answer each report, and a connection on which
nothing is heard for some seconds is given up: a network that swallows everything says nothing else. No call waits
longer than it is told to.

Things that don't work: psycopg's own reading of a COPY, which waits without a deadline, so that reports would stop
while the database is quiet; a place sent along with START_REPLICATION, which Postgres 15 and newer ignore without a
word where it is too old; a publication that is made after its slot: Postgres 18 looks for it at the place in the log
that it reads, warns in its own log that it is not there yet, and passes over what was committed by then.

Source: PostgreSQL's documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

import select
import time
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import psycopg
from psycopg import errors, sql

from pipeline.publish.pgoutput import Undecodable
from pipeline.runtime import Unavailable, address, first_line

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

_DATA, _KEEPALIVE, _STATUS = Struct("!cQQq"), Struct("!cQqB"), Struct("!cQQQqB")
_EPOCH_US = 946_684_800_000_000  # of Postgres, 2000-01-01, in Unix time

SILENCE_S = 3.0  # a report a second is answered in between

# Without parameters: a walsender knows the simple query protocol only.
_PUBLICATION = sql.SQL("select from pg_publication where pubname = {}")
_START = sql.SQL("START_REPLICATION SLOT {} LOGICAL 0/0 (proto_version '1', publication_names {}, messages 'true')")


class Data(NamedTuple):
    """A message of the output plugin, and where in the log it is from."""

    lsn: int
    message: bytes


class Keepalive(NamedTuple):
    """The walsender has sent everything up to `end_lsn` that is for us, and may want to hear that we are there."""

    end_lsn: int
    wants_reply: bool


Frame: TypeAlias = "Data | Keepalive"


def decode(frame: bytes | memoryview) -> Frame:
    """A frame of the replication protocol.

    Raises:
        Undecodable: it is none.
    """
    size = len(frame)
    if size > _DATA.size:
        kind, lsn, _, _ = _DATA.unpack_from(frame)
        if kind == b"w":
            return Data(lsn, bytes(frame[_DATA.size :]))
    if size == _KEEPALIVE.size:
        kind, end_lsn, _, wants_reply = _KEEPALIVE.unpack_from(frame)
        if kind == b"k":
            return Keepalive(end_lsn, bool(wants_reply))
    why = f"a frame of the kind {bytes(frame[:1])!r} with so many bytes is none of the replication protocol's"
    raise Undecodable(why, bytes(frame))


def lsn(text: str) -> int:
    """A place in the log, as Postgres writes it."""
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def status(written: int, flushed: int, *, at: float) -> bytes:
    """A report that wants an answer: received up to `written`, done with up to `flushed`; `at` is Unix time."""
    return _STATUS.pack(b"r", written, flushed, flushed, int(at * 1e6) - _EPOCH_US, 1)


class Stream:
    """Reads a slot from its confirmed place on.

    Args:
        url: of the database.
        slot: a logical slot of it, made for pgoutput.
        publication: says which tables, and has to be there.
        silence_s: how long Postgres goes without a report from us before it gives the slot to others.

    Raises:
        Unavailable: the server is away, another connection reads the slot, or something has to be set up first; it
            says what.
    """

    def __init__(self, url: str, slot: str, publication: str, silence_s: float = 60) -> None:
        self._name = f"Slot {slot!r} of Postgres at {address(url)}"
        self.confirmed = 0
        self.received = 0
        self._heard = time.monotonic()
        try:
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=3,
                replication="database",
                options=f"-c wal_sender_timeout={1000 * silence_s:.0f}",
            )
        except psycopg.Error as why:
            raise Unavailable(self._name, first_line(why)) from why
        try:
            [[system, timeline, written, _]] = self._connection.execute("IDENTIFY_SYSTEM").fetchall()
            self.server = f"{system}/{timeline}"  # who counts the places in this log
            self.written = lsn(written)
            self._require(publication)
            self._connection.execute(
                _START.format(sql.Identifier(slot), sql.Literal(sql.Identifier(publication).as_string()))
            )
        except psycopg.Error as why:
            self.close()
            raise Unavailable(self._name, explained(why, slot)) from why
        except BaseException:
            self.close()
            raise

    def _require(self, publication: str) -> None:
        """Postgres 18 only warns of a publication that is not there, and sends nothing."""
        found = self._connection.execute(_PUBLICATION.format(sql.Literal(publication))).fetchone()
        if found is None:
            run = f"create publication {publication} for table outbox with (publish = 'insert')"
            raise Unavailable(self._name, f"there is no publication {publication!r}: run {run}")

    @property
    def _pgconn(self) -> PGconn:
        return self._connection.pgconn

    def receive(self, seconds: float) -> Frame | None:
        """The next frame, or None if there is none within so many seconds.

        Raises:
            Unavailable: the connection has ended, or is silent.
            Undecodable: what came is no frame.
        """
        size, data = self._pgconn.get_copy_data(1)
        if not size:
            if select.select([self._pgconn.socket], [], [], seconds)[0]:
                self._heard = time.monotonic()  # a part of a long message is a word too
                self._consume()
                size, data = self._pgconn.get_copy_data(1)
            elif time.monotonic() > self._heard + SILENCE_S:
                raise Unavailable(self._name, f"it has said nothing for {SILENCE_S:g} s")
            if not size:
                return None
        if size < 0:
            result = self._pgconn.get_result() if size == -1 else None
            said = (result.error_message if result else self._pgconn.error_message).decode(errors="replace")
            raise Unavailable(self._name, said.partition("\n")[0] or "the server has ended the stream")
        frame = decode(data)
        self.received = max(self.received, frame.lsn if isinstance(frame, Data) else frame.end_lsn)
        return frame

    def confirm(self, lsn: int) -> None:
        """Everything before this place is dealt with, for good: it never comes again. Told with the next report."""
        self.confirmed = max(self.confirmed, lsn)

    def report(self) -> None:
        """Tell the walsender that we are there, and what is confirmed.

        Raises:
            Unavailable: the connection has ended.
        """
        try:
            self._pgconn.put_copy_data(status(max(self.received, self.confirmed), self.confirmed, at=time.time()))
            self._pgconn.flush()
        except psycopg.OperationalError as why:
            raise Unavailable(self._name, first_line(why)) from why

    def close(self) -> None:
        """Leave the slot to others."""
        self._connection.close()

    def _consume(self) -> None:
        try:
            self._pgconn.consume_input()
        except psycopg.OperationalError as why:
            raise Unavailable(self._name, first_line(why)) from why


def explained(why: psycopg.Error, slot: str) -> str:
    """What Postgres says, and what to run where it has to be set up first."""
    said = first_line(why)
    if isinstance(why, errors.ObjectInUse):
        return f"another relay reads it ({said})"
    if isinstance(why, errors.UndefinedObject):
        return f"{said}: run python -m pipeline slot, with SLOT={slot}"
    if "invalidated" in said or "can no longer" in said:
        return f"{said}: run python -m pipeline slot, with SLOT={slot}"
    if "wal_level" in said:
        return f"{said}: run alter system set wal_level = 'logical', and restart Postgres"
    if isinstance(why, errors.InsufficientPrivilege):
        return f"{said}: run alter role … replication"
    return said
