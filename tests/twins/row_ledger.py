"""A trusted recorder of rows: one JSON line for each that was committed in the tables of a publication.

It reads the log, so it sees what was committed and in which order, whoever wrote it, duplicates included; and it
confirms what is on disk, so that `rows_recorded` says whether it has read everything.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from chaos import Condition
from pipeline.publish.pgoutput import Commit, Decoder, Insert
from pipeline.publish.replication import Keepalive, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos import Lane

WAIT_S = 0.5  # a report a second, at least


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
    stream, decoder = Stream(os.environ["DATABASE_URL"], os.environ["SLOT"], "rows"), Decoder()
    with (
        Path(os.environ["LEDGER"]).open("ab", buffering=0) as ledger,
        socket.create_server(("127.0.0.1", int(os.environ["PORT"]))),
    ):
        lines: list[bytes] = []
        while True:
            frame = stream.receive(WAIT_S)
            confirmed = stream.confirmed
            change = None if frame is None or isinstance(frame, Keepalive) else decoder.decode(frame.message)
            if isinstance(change, Insert):
                lines.append(line(change))
            elif isinstance(change, Commit):
                ledger.write(b"".join(lines))
                os.fsync(ledger.fileno())
                lines.clear()
                stream.confirm(change.end_lsn)
            elif isinstance(frame, Keepalive) and not lines:
                stream.confirm(frame.end_lsn)
            # A report is answered by a keepalive: who reports at each of those never rests.
            if frame is None or stream.confirmed > confirmed:
                stream.report()


def line(row: Insert) -> bytes:
    """What the ledger says about a row."""
    names = [column.name for column in row.relation.columns]
    values = [None if value is None else value.decode() for value in row.values]
    return json.dumps({"table": row.relation.name} | dict(zip(names, values, strict=True))).encode() + b"\n"
