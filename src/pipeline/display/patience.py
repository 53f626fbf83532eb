"""Patience with a Postgres that is there and says nothing: little, as people look at a page."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import psycopg

PATIENCE_S = 3.0


@asynccontextmanager
async def patience(connection: psycopg.AsyncConnection) -> AsyncIterator[None]:
    """Hang up on who does not answer; that is `psycopg.OperationalError` for whoever waits.

    Not `asyncio.timeout`: psycopg would ask that server to cancel, and wait ten seconds for its answer.
    """
    timer = asyncio.get_running_loop().call_later(PATIENCE_S, _hang_up, connection)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connection: psycopg.AsyncConnection) -> None:
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as line:
            line.shutdown(socket.SHUT_RDWR)
