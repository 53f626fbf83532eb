"""The trusted recorder of rows: it says what was committed, and rests when nothing is."""

from __future__ import annotations

import json
import time
from functools import partial
from typing import TYPE_CHECKING

from chaos.waiting import Deadline, wait_until
from tests.fix_pipeline import SCHEMA
from tests.twins import row_ledger

if TYPE_CHECKING:
    from chaos import Session

TABLES = ["stock"]
ROW = "insert into stock values ('sku-1', 1)"
OTHERS = "insert into inbox values ('nobody', gen_random_uuid())"
LAST_REPORT = "select reply_time, pg_current_wal_insert_lsn() from pg_stat_replication where application_name = ''"
WATCHED_S = 1.0


def test_it_records_confirms_and_rests(onecharge: Session) -> None:
    """What was committed is recorded and confirmed, also what is not for us; then no report comes without news."""
    with onecharge.lane(schema=SCHEMA, topics={}) as lane:
        row_ledger.setup(lane, TABLES)
        slot = {"SLOT": row_ledger.slot(lane)}
        ledger = lane.trusted("rows", row_ledger.main, ledger="rows.jsonl", key="sku", env=slot).ledger
        recorded = row_ledger.rows_recorded(TABLES)
        for statement in (ROW, OTHERS):
            lane.execute(statement)
            wait_until("it to be confirmed", partial(recorded.outstanding, lane), Deadline(10), accept=lambda s: not s)
        assert [json.loads(line) for line in ledger.path.read_text().splitlines()] == [
            {"table": "stock", "sku": "sku-1", "available": "1"}
        ]

        began, seen = time.monotonic(), set()
        while time.monotonic() < began + WATCHED_S:
            seen.update(lane.look(LAST_REPORT))
        reports, ends = ({row[column] for row in seen} for column in (0, 1))  # Postgres writes now and then by itself
        assert 1 <= len(reports) <= len(ends) + 1 + (time.monotonic() - began) / row_ledger.WAIT_S
