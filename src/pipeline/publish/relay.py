"""The relay that RELAY names: `polling`, which looks into the outbox, or `cdc`, which reads the write-ahead log.

Both carry the same rows of the same table to the same topic, in the same form. `docs/polling-or-cdc.md` says when which
is right. With EXACTLY_ONCE the second one uses Kafka's transactions.
"""

from __future__ import annotations

from pipeline.publish import cdc, polling
from pipeline.publish.exactly_once import ExactlyOnce
from pipeline.settings import CdcSettings, WhichRelay, load


def main() -> None:
    """Run it until SIGTERM."""
    if load(WhichRelay).relay == "polling":
        polling.run()
    else:
        cdc.run(ExactlyOnce if load(CdcSettings).exactly_once else cdc.CdcRelay)
