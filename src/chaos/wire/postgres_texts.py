"""How a text of SQL in one simple Query is sent, so that what it commits is a request of its own.

====================================== ==========================================================================
``pass``                               as it is: nothing that may have written is committed by it
``commit``                             what is before its COMMIT, which is its last statement; then that
``one``                                as Parse, Bind, Describe, Execute, which is one transaction too; then a Sync
``block``                              BEGIN, the text as it is, COMMIT; the server itself runs it as a block
``arrival``                            as it is, an effect: what commits by itself, or more than once, or nobody knows
====================================== ==========================================================================
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from chaos.wire.postgres_sql import statements
from chaos.wire.postgres_transaction import may_write

if TYPE_CHECKING:
    from chaos.wire.postgres_sql import Statement

Way: TypeAlias = Literal["pass", "commit", "one", "block", "arrival"]

AT_ONCE: Final = {
    "at once": "postgres.write",
    "call": "postgres.write",
    "commit prepared": "postgres.commit_prepared",
    "rollback prepared": "postgres.rollback_prepared",
}
COMMITS: Final = {"commit": "postgres.commit", "prepare transaction": "postgres.prepare_transaction"}

_CONTROLS: Final = {"begin", "rollback", "savepoint", "rollback to", "release", *COMMITS}
_PARAMETER: Final = re.compile(rb"\$[0-9]").search
_COMMIT: Final = re.compile(
    rb"(?:commit|end)(?:\s+(?:work|transaction))?(?:\s+and\s+(?:no\s+)?chain)?|prepare\s+transaction\s+'[^'\\]*'",
    re.IGNORECASE,
).fullmatch


def way(parts: tuple[Statement, ...] | None, text: bytes, status: bytes) -> Way:
    """How to send `text`, of these statements, in a session of this status."""
    if parts is None:
        return "arrival"
    points, blocked = _commits(parts, status)
    if not points:
        return "pass"
    kinds, several = {part.kind for part in parts}, len(parts) > 1
    if "copy in" in kinds:  # the end of its data is the effect, unless the client has to go on in the middle of it
        return "arrival" if several else "pass"
    if points == [len(parts) - 1] and blocked and (not several or before_commit(parts, text) is not None):
        return "commit"
    apart = points == [len(parts)] and status == b"I" and not kinds & {*_CONTROLS, *AT_ONCE}
    if not apart or (not several and _PARAMETER(text)):  # $1 is another error there
        return "arrival"
    return "block" if several else "one"


def _commits(parts: tuple[Statement, ...], status: bytes) -> tuple[list[int], bool]:
    """Before which statements something that may have written is committed; whether the last of these ends a block."""
    points = []
    state, dirty, blocked = status, status == b"T", False
    for at, part in enumerate(parts):
        if part.kind in {"rollback", *COMMITS}:
            if dirty and part.kind in COMMITS and state != b"E":
                points.append(at)
                blocked = state == b"T"
            state, dirty = b"T" if part.chain else b"I", False
        elif state == b"E":
            state = b"T" if part.kind == "rollback to" else b"E"
            dirty = state == b"T"
        elif part.kind == "begin":
            state = b"T"
        elif part.kind in AT_ONCE and state == b"I":
            points.append(at)
            dirty = True
        else:
            dirty = dirty or may_write(part)
    if state == b"I" and dirty:
        points.append(len(parts))
    return points, blocked


def before_commit(parts: tuple[Statement, ...], text: bytes) -> bytes | None:
    """What is before the last statement, a COMMIT; None where that cannot be said for sure."""
    *before, commit = parts
    prefix = text[: text.rindex(commit.text)]
    return prefix if _COMMIT(commit.text) and statements(prefix) == tuple(before) else None
