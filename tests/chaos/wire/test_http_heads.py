"""Heads of HTTP/1.1: what is read without h11 is what h11 reads."""

from __future__ import annotations

import re
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.wire import http_heads

HEAD = b"POST /pay HTTP/1.1\r\nHost: shop\r\nContent-Length: 7\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def with_line(line: bytes) -> bytes:
    """The head with one more line."""
    return HEAD[:-2] + line + b"\r\n\r\n"


NAMES = ["Host", "hOst", "Content-Length", "content-length", "Transfer-Encoding", "Expect", "Connection", "X-A", "X,Y"]
VALUES = [
    "shop",
    "7",
    "07",
    "7, 7",
    "+7",
    "7 7",
    "",
    " ",
    "chunked",
    "Chunked",
    "gzip, chunked",
    "100-Continue",
    "a\tb",
]
LINES = [
    "POST /a HTTP/1.1\r\nHost: shop",
    "POST / HTTP/1.0\r\nhost:",
    "p-t * HTTP/1.1",
    "HTTP/1.1 200 OK",
    "HTTP/1.0 503 ",
    "HTTP/1.1 404",
]
names = st.sampled_from(NAMES)
values = st.sampled_from(VALUES) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=5)
odd_values = st.text(st.characters(max_codepoint=255), max_size=5)
gaps = st.sampled_from(["", " ", "  "])
odd_gaps = st.sampled_from(["\t", "\r", "\n "])
lines = st.builds("{}:{}{}{}".format, names, gaps, values, gaps)
odd_lines = st.builds("{}{}{}{}".format, names, st.sampled_from([":", " :"]), odd_gaps | gaps, odd_values | values)
ends = st.sampled_from(["\r\n"] * 20 + ["\n"])


@given(st.sampled_from(LINES), st.lists(lines, max_size=4) | st.lists(lines | odd_lines, max_size=4), st.data())
def test_plain_heads_are_read_as_h11_reads_them(line: str, more: list[str], data: st.DataObject) -> None:
    """Whatever is read without h11 is what h11 says, in every field that tells anything."""
    ends_ = [data.draw(ends) for _ in range(len(more) + 2)]
    head = "".join(one + end for one, end in zip([line, *more, ""], ends_, strict=True)).encode("latin-1")
    if not re.fullmatch(rb"(?s).*?\n\r?\n", head) or re.search(rb"\n\r?\n(?!\Z)", head):
        return
    role = h11.CLIENT if line.startswith("HTTP") else h11.SERVER
    plain = http_heads._plain_fields(role, head)
    if plain is not None:
        connection = h11.Connection(role)
        connection.receive_data(head)
        event: Any = connection.next_event()
        assert plain == {name: value for name, value in event.headers if name in http_heads.TELLING}
        assert len(plain) == len([name for name, _ in event.headers if name in http_heads.TELLING])


def test_plain_heads_need_no_h11(monkeypatch: pytest.MonkeyPatch) -> None:
    """What clients and servers usually say is read without h11, which takes ten times as long; what is odd is not."""
    monkeypatch.delattr(h11, "Connection")
    uvicorn = b"HTTP/1.1 201 Created\r\ndate: Mon, 23 Nov 2026 14:00:00 GMT\r\ntransfer-encoding: chunked\r\n\r\n"
    for role, head in ((h11.SERVER, with_line(b"User-Agent: x (y; z)")), (h11.CLIENT, uvicorn), (h11.CLIENT, CONTINUE)):
        http_heads.fields(role, head)
    unknown, moved = b"Transfer-Encoding: gzip", HEAD.replace(b"Host", b"Hast")
    for odd in (with_line(b"Content-Length: 3"), with_line(b"X: a\r\n b"), with_line(unknown), moved):
        with pytest.raises(AttributeError):
            http_heads.fields(h11.SERVER, odd)
