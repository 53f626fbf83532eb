"""Heads of HTTP/1.1 messages: where one ends, and what it says about what comes behind it.

h11's word is final, and takes 60 µs a head: more than a wire may cost. So a head of the plainest form, where h11 could
say one thing only, is read by two regular expressions, 4 µs; any other one goes to h11. A test holds the two together.

Thought of and not taken: httptools (llhttp), which is more lenient than h11 where lengths contradict; a cache of heads
read before, which would hit nothing as lengths and keys of idempotency differ each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import h11

LIMIT: Final = 64 * 1024
"""Bytes of one message that are kept back at most; a head that is longer is not understood."""

_HEAD_END: Final = re.compile(rb"\n\r?\n")  # what h11 takes for it
_PLAIN: Final = re.compile(
    rb"(?:[A-Za-z][A-Za-z-]{0,23} [!-~]+ HTTP/1\.[01]|HTTP/1\.[01] [1-9][0-9]{2} ?[ -~]*)\r\n"
    rb"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+:[ -~]*\r\n)*\r\n"
)
TELLING: Final = (b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"content-encoding")
"""The header fields that anything depends on."""

_TELLING: Final = re.compile(rb"\n(%b): *([^\r]*)" % b"|".join(TELLING), re.IGNORECASE)
_LENGTH: Final = re.compile(rb"[0-9]{1,15}")


class NotUnderstood(Exception):
    """Why the connection is raw from here on."""


@dataclass(frozen=True, slots=True)
class Form:
    """How the heads of one direction begin."""

    line: re.Pattern[bytes]
    so_far: re.Pattern[bytes]
    """What the beginning of such a line matches."""


REQUESTS: Final = Form(
    re.compile(rb"[A-Za-z][A-Za-z-]{0,23} [!-~]+ HTTP/1\.[01]\r?\n"),
    re.compile(rb"[A-Za-z][A-Za-z-]{0,23}(?: [ -~]*\r?)?"),
)
REPLIES: Final = Form(
    re.compile(rb"HTTP/1\.[01] ([1-9][0-9]{2})(?: [^\r\n]*)?\r?\n"),
    re.compile(rb"H|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.[^\r\n]*\r?"),
)


def length(form: Form, data: bytes, at: int) -> int:
    """The length of the head that begins there; 0 while it is incomplete."""
    limit = at + LIMIT
    end = data.find(b"\n", at, limit) + 1
    line = data[at : end or limit]
    if line == b"\r":
        return 0
    if line.startswith(b"PRI * HTTP/2.0"):
        raise NotUnderstood("HTTP/2")
    if not (form.line if end else form.so_far).fullmatch(line):
        raise NotUnderstood(f"not HTTP/1.1: {line[:40]!r}")
    if end and (found := _HEAD_END.search(data, end - 1, limit)):
        return found.end() - at
    if len(data) >= limit:
        raise NotUnderstood(f"a head of more than {LIMIT} bytes")
    return 0


def fields(role: type[h11.SERVER | h11.CLIENT], head: bytes) -> dict[bytes, bytes]:
    """The header fields of a complete head, as h11 reads it in the `role` of its receiver; those at least that tell."""
    if (told := _plain_fields(role, head)) is not None:
        return told
    connection = h11.Connection(role)
    connection.receive_data(head)
    try:
        event = connection.next_event()
    except h11.ProtocolError as error:
        raise NotUnderstood(f"not HTTP/1.1: {error}") from error
    if not isinstance(event, h11.Request | h11.Response):
        raise NotUnderstood(f"not HTTP/1.1: {head[:40]!r}")
    return dict(event.headers)


def _plain_fields(role: type[h11.SERVER | h11.CLIENT], head: bytes) -> dict[bytes, bytes] | None:
    """What h11 would find, or None if that takes h11."""
    if not _PLAIN.fullmatch(head):
        return None
    pairs = _TELLING.findall(head)
    told = {name.lower(): value.rstrip(b" ") for name, value in pairs}
    if len(told) != len(pairs) or (role is h11.SERVER and b"host" not in told):
        return None
    if b"transfer-encoding" in told and told[b"transfer-encoding"] != b"chunked":
        return None
    if b"content-length" in told and not _LENGTH.fullmatch(told[b"content-length"]):
        return None
    return told
