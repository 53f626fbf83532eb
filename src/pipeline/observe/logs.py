"""What a worker logs: lines for people, or JSON for machines (LOG_FORMAT=json), on stderr.

A line that is about an event says which: `order_id`, `event_id` and, if there is one, the `traceparent` of the request
that has led to it. With LOG_LEVEL=DEBUG each hop says so of every event that it lets pass, so that an order can be
followed by its trace. Several workers often share a terminal, so each line has its worker's name.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

    from structlog.typing import EventDict, WrappedLogger

FORMAT, LEVEL = "LOG_FORMAT", "LOG_LEVEL"
FIELDS = ("order_id", "event_id", "traceparent")


def about(order_id: str, event_id: UUID | str, traceparent: str | None = None) -> Mapping[str, str]:
    """The `extra` of a record that is about an event."""
    found = {"order_id": order_id, "event_id": str(event_id)}
    return found | {"traceparent": traceparent} if traceparent else found


def log_to_stderr(worker: str) -> None:
    """Log so from now on. A LOG_LEVEL that is none ends the process; one that is empty is not set."""

    def name(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        return {"worker": worker, **event}

    json = os.environ.get(FORMAT) == "json"
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.ExtraAdder(allow=FIELDS),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            name,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer() if json else _for_people,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    level = os.environ.get(LEVEL) or "INFO"
    try:
        logging.basicConfig(handlers=[handler], level=level.upper())
    except ValueError as why:
        sys.exit(f"pipeline: {LEVEL}={level} is no level to log at: {why}")


def _for_people(_: WrappedLogger, __: str, event: EventDict) -> str:
    told = [event["timestamp"], event["worker"], event["level"].upper(), event["event"]]
    told += [f"{field}={event[field]}" for field in FIELDS if field in event]
    return " ".join(map(str, told)) + (f"\n{event['exception']}" if "exception" in event else "")
