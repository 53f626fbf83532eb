"""The trace that an order belongs to: the client's, or a new one. It travels with the event, from hop to hop.

Source: W3C Trace Context, `traceparent`. A header that is malformed, or given twice, is as good as none.
"""

from __future__ import annotations

import re
import secrets

TRACEPARENT = "traceparent"

# Ids of zeros are none, and there is never a version ff. Later ones than 00 may say more, after a dash.
_FORMAT = re.compile(r"(?!ff)([0-9a-f]{2})(-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(-.*)?")


def trace(headers: list[str]) -> str:
    """The `traceparent` to go on with, in version 00, given the values of the request's."""
    given = _FORMAT.fullmatch(headers[0]) if len(headers) == 1 else None
    if given and not (given[1] == "00" and given[3]):
        return f"00{given[2]}"
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"
