"""Whose request it is. Any page can have a browser ask a server on this machine, and post to it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.requests import Request

LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?", re.IGNORECASE)


def foreign(request: Request) -> bool:
    """Whether a browser was sent here by somebody else's page; what is no browser need not say where it comes from.

    We listen on 127.0.0.1 only. Who comes by another name comes by one that its owner has pointed at this machine (DNS
    rebinding): its pages are of the same origin as ours, for the browser, so that `Origin` says nothing.
    """
    host = request.headers.get("Host", "")
    if not LOOPBACK.fullmatch(host):
        return True
    if request.method in {"GET", "HEAD"}:
        return False
    origin, site = request.headers.get("Origin"), request.headers.get("Sec-Fetch-Site", "none")
    # Other ports of this machine are of the same site.
    return origin not in {None, f"http://{host}", f"https://{host}"} or site not in {"none", "same-origin"}
