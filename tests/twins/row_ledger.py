"""A trusted recorder of rows: one JSON line for each that was committed in the tables of a publication.

It reads the log, so it sees what was committed and in which order, whoever wrote it, duplicates included; and it
confirms what is on disk, so that `rows_recorded` says whether it has read everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import Condition
from pipeline.publish.pgoutput import Commit, Decoder, Insert
from pipeline.publish.replication import Keepalive, Stream
from pipeline.runtime import Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos import Lane

WAIT_S = 0.5  # a report a second, at least
PAUSE_S = 0.05


def setup(lane: Lane, tables: Sequence[str]) -> None:
    """Make what it reads: the slot `<lane>_rows` and the publication `rows`, of inserts."""
    lane.execute(f"create publication rows for table {', '.join(tables)} with (publish = 'insert')")
    lane.execute(f"select pg_create_logical_replication_slot('{slot(lane)}', 'pgoutput')")


def slot(lane: Lane) -> str:
    """The name of the slot."""
    return f"{lane.name}_rows"


def rows_recorded(tables: Sequence[str]) -> Condition:
    """Everything that was in the tables when there was last more in them is in the ledger."""
    counts = ", ".join(f"(select count(*) from {table})" for table in tables)  # noqa: S608 - the drill's author names them
    seen: tuple[list[int], str] = ([], "0/0")

    def outstanding(lane: Lane) -> str:
        nonlocal seen
        [(end, *found)] = lane.look(f"select pg_current_wal_insert_lsn()::text, {counts}")
        if found != seen[0]:
            seen = (found, end)
        behind = f"slot_name = '{slot(lane)}' and confirmed_flush_lsn < '{seen[1]}'"
        left = lane.look(f"select confirmed_flush_lsn::text from pg_replication_slots where {behind}")  # noqa: S608 - ours
        return f"rows are recorded up to {left[0][0]} of {seen[1]}" if left else ""

    return Condition("rows recorded", outstanding)


def main() -> None:
    """Record until SIGKILL. It listens at PORT and never answers: that is how a lane sees that it is there."""
    recorder = Recorder(Path(os.environ["LEDGER"]))
    with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))):
        while True:
            with contextlib.suppress(Unavailable):  # Postgres was away; what was not confirmed comes again
                recorder.record(Stream(os.environ["DATABASE_URL"], os.environ["SLOT"], "rows"))
            time.sleep(PAUSE_S)


class Recorder:
    """Writes what a stream brings; what comes again is known by its place in the log."""

    def __init__(self, path: Path) -> None:
        self._ledger = path.open("ab", buffering=0)
        self._written = 0  # up to here

    def record(self, stream: Stream) -> None:
        """Until the stream ends."""
        decoder, lines = Decoder(), list[bytes]()
        while True:
            frame = stream.receive(WAIT_S)
            confirmed = stream.confirmed
            change = None if frame is None or isinstance(frame, Keepalive) else decoder.decode(frame.message)
            if isinstance(change, Insert):
                lines.append(line(change))
            elif isinstance(change, Commit):
                self._write(lines, change.end_lsn)
                lines.clear()
                stream.confirm(change.end_lsn)
            elif isinstance(frame, Keepalive) and not lines:
                stream.confirm(frame.end_lsn)
            # A report is answered by a keepalive: who reports at each of those never rests.
            if frame is None or stream.confirmed > confirmed:
                stream.report()

    def _write(self, lines: Sequence[bytes], end_lsn: int) -> None:
        if end_lsn > self._written:
            self._ledger.write(b"".join(lines))
            os.fsync(self._ledger.fileno())
            self._written = end_lsn


def line(row: Insert) -> bytes:
    """What the ledger says about a row."""
    names = [column.name for column in row.relation.columns]
    values = [None if value is None else value.decode() for value in row.values]
    return json.dumps({"table": row.relation.name} | dict(zip(names, values, strict=True))).encode() + b"\n"
