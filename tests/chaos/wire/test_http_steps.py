"""HTTP/1.1 step by step: nothing is decided ahead, what is overdue is said, what is refused reaches no server."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import threading
from typing import TYPE_CHECKING

import pytest

from chaos.services.ports import lease_port
from chaos.wire.http import Http
from chaos.wire.http_heads import LIMIT
from chaos.wire.steps import Answer, Delivered, Drop, Effect, Pass, Raw, Reply
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from chaos.wire.steps import Step

HEAD = b"POST /pay HTTP/1.1\r\nHost: shop\r\nContent-Length: 7\r\n\r\n"
POST = HEAD + b"order-1"
GET = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKED = b"POST /pay HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n"
TWO_LENGTHS = POST.replace(b"Host", b"Content-Length: 3\r\nHost")
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n"


def headed(line: bytes, head: bytes = HEAD) -> bytes:
    """The head with one more line."""
    return head[:-2] + line + b"\r\n\r\n"


def kinds(steps: list[Step]) -> list[type]:
    """What they are."""
    return [type(step) for step in steps]


def test_nothing_is_read_ahead() -> None:
    """While an effect is the present step, what is behind it has neither been counted nor found to be nonsense."""
    protocol = Http()
    steps = protocol.requests(POST + GET + POST + TWO_LENGTHS)
    assert protocol.outstanding == 0
    seen: list[tuple[type, int]] = []
    for step in steps:
        seen.append((type(step), protocol.outstanding))
        if len(seen) == 1:
            assert kinds(list(protocol.replies(OK))) == [Answer]
    assert seen == [(Effect, 1), (Delivered, 0), (Pass, 1), (Effect, 2), (Delivered, 2), (Raw, 0), (Pass, 0)]


def test_replies_are_not_read_ahead() -> None:
    """While a reply is the present step, the one behind it is not read; a request may come until it is."""
    protocol = Http()
    assert kinds(list(protocol.requests(POST))) == [Effect, Delivered]
    steps = protocol.replies(OK + OK)
    assert next(steps) == Answer(1, "done", OK)
    assert kinds(list(protocol.requests(POST))) == [Effect, Delivered]
    assert list(steps) == [Answer(2, "done", OK)]


def test_one_side_turns_raw_while_the_other_waits() -> None:
    """What was not said when the other side turned raw is only bytes at the next step."""
    protocol = Http()
    steps = protocol.requests(POST + POST)
    assert kinds([next(steps)]) == [Effect]
    assert kinds(list(protocol.replies(b"gibberish"))) == [Raw, Pass]
    assert list(steps) == [Pass(POST)]
    assert (protocol.outstanding, protocol.kept) == (0, False)


def test_what_was_kept_when_the_other_side_turned_raw_is_overdue() -> None:
    """A request kept back when the server turns out not to speak HTTP comes out without another byte of its client."""
    protocol = Http()
    assert list(protocol.requests(POST[:-1])) == []
    assert kinds(list(protocol.replies(b"gibberish"))) == [Raw, Pass]
    assert protocol.kept
    assert list(protocol.overdue()) == [Pass(POST[:-1])]
    assert not protocol.kept
    assert list(protocol.requests(POST[-1:])) == [Pass(POST[-1:])]


@pytest.mark.parametrize("cut", [len(HEAD), len(HEAD) + 3])
def test_overdue(cut: int) -> None:
    """Of a client that waits in the middle of a body, the effect is said with what is there; the rest passes."""
    protocol = Http()
    assert list(protocol.requests(POST[:cut])) == []
    assert (protocol.kept, protocol.outstanding) == (True, 0)
    assert list(protocol.overdue()) == [Effect(1, "http.post", (HEAD, POST[len(HEAD) : cut]), POST[:cut])]
    assert (protocol.kept, protocol.outstanding) == (False, 1)
    assert list(protocol.overdue()) == []
    assert list(protocol.replies(OK)) == [Answer(1, "done", OK)]
    assert list(protocol.requests(POST[cut:] + GET)) == [Pass(POST[cut:]), Delivered(1), Pass(GET)]


def test_not_overdue() -> None:
    """Half a head is kept and is no effect yet; what is behind the present step is not kept."""
    protocol = Http()
    assert not protocol.kept
    assert list(protocol.requests(HEAD[:30])) == []
    assert protocol.kept
    assert list(protocol.overdue()) == []
    steps = protocol.requests(HEAD[30:] + b"order-1" + HEAD)
    assert kinds([next(steps)]) == [Effect]
    assert not protocol.kept
    assert list(protocol.overdue()) == []
    assert kinds(list(steps)) == [Delivered]
    assert protocol.kept


def test_outstanding() -> None:
    """A request is outstanding until the last byte of its reply has passed; interim replies do not count."""
    protocol = Http()
    assert [len(list(protocol.requests(request))) for request in (GET, POST, GET)] == [1, 2, 1]
    counts = []
    for piece in (CONTINUE, OK[:10], OK[10:-1], OK[-1:] + OK[:-1], OK[-1:], b"\r\n", OK):
        assert list(protocol.replies(piece)) or piece == OK[:10]
        counts.append(protocol.outstanding)
    assert counts == [3, 3, 3, 2, 1, 1, 0]


def test_not_understood() -> None:
    """A body whose compression is not read here is counted; its effect is said all the same."""
    protocol = Http()
    odd = headed(b"Content-Encoding: br") + b"order-1"
    plain = headed(b"Content-Encoding: identity") + b"order-1"
    packed = gzip.compress(b"order-1")
    zipped = headed(b"Content-Encoding: gzip").replace(b": 7", b": %d" % len(packed)) + packed
    steps = list(protocol.requests(odd + plain + zipped))
    assert [step.contents[1] for step in steps if isinstance(step, Effect)] == [b"order-1"] * 3
    assert protocol.not_understood == {"http.post in br": 1}
    assert protocol.farewell() == b""


REFUSALS = [
    (POST, "503", UNAVAILABLE),
    (POST, "429", UNAVAILABLE.replace(b"503 Service Unavailable", b"429 Too Many Requests")),
    (POST, "500", b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
    (POST, "499", b"HTTP/1.1 499 Refused\r\nContent-Length: 0\r\n\r\n"),
    (headed(b"Connection: Close") + b"order-1", "503", UNAVAILABLE[:-2] + b"Connection: close\r\n\r\n"),
    (POST.replace(b"1.1", b"1.0"), "503", UNAVAILABLE[:-2] + b"Connection: close\r\n\r\n"),
    (
        headed(b"Connection: keep-alive").replace(b"1.1", b"1.0") + b"order-1",
        "503",
        UNAVAILABLE[:-2] + b"Connection: keep-alive\r\n\r\n",
    ),
    (headed(b"Expect: 100-continue"), "503", UNAVAILABLE[:-2] + b"Connection: close\r\n\r\n"),
]


@pytest.mark.parametrize(("request_", "error", "reply"), REFUSALS)
def test_refuse(request_: bytes, error: str, reply: bytes) -> None:
    """A refused effect is dropped and answered by the wire; then comes the next, unless the reply said close."""
    protocol = Http()
    steps = protocol.requests(request_ + POST)
    effect = next(steps)
    assert isinstance(effect, Effect)
    assert list(protocol.refuse(effect, error)) == [Drop(effect.data), Reply(reply)]
    assert protocol.outstanding == 0
    if b"close" in reply:
        assert list(steps) == [Drop((request_ + POST)[len(effect.data) :])]
        assert list(protocol.requests(POST)) == [Drop(POST)]
    else:
        assert list(steps) == [Effect(2, "http.post", (HEAD, b"order-1"), POST), Delivered(2)]
        assert list(protocol.replies(OK)) == [Answer(2, "done", OK)]


@pytest.mark.parametrize("chunked", [False, True])
def test_the_rest_of_a_refused_body_is_dropped(chunked: bool) -> None:  # noqa: FBT001
    """Of a refused request that is too long to be kept, nothing reaches the server; the next request does."""
    body = b"k" * 3 * LIMIT
    whole = (
        (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        if chunked
        else HEAD.replace(b": 7", b": 196608") + body
    )
    protocol = Http()
    steps = protocol.requests(whole[: 2 * LIMIT])
    effect = next(steps)
    assert isinstance(effect, Effect)
    said: list[Step] = [*protocol.refuse(effect, "503"), *steps, *protocol.requests(whole[2 * LIMIT :] + POST)]
    assert b"".join(step.data for step in said if isinstance(step, Drop)) == whole
    assert [step for step in said if not isinstance(step, Drop)] == [
        Reply(UNAVAILABLE),
        Effect(2, "http.post", (HEAD, b"order-1"), POST),
        Delivered(2),
    ]


@pytest.mark.parametrize("end", [b"nonsense" + POST, b""])
def test_a_refused_body_that_breaks(end: bytes) -> None:
    """If nobody can tell where a refused body ends, or it does not, nothing more reaches the server."""
    protocol = Http()
    assert list(protocol.requests(CHUNKED + b"3\r\nabc")) == []
    [effect] = protocol.overdue()
    assert isinstance(effect, Effect)
    assert kinds(list(protocol.refuse(effect, "503"))) == [Drop, Reply]
    assert {type(step) for data in (end, b"") for step in protocol.requests(data)} <= {Drop}
    assert kinds(list(protocol.replies(b"gibberish"))) == [Raw, Pass]
    assert {type(step) for step in protocol.requests(POST)} == {Drop}


def test_what_cannot_be_refused() -> None:
    """An error that HTTP does not have, or an effect that is over, is said; nothing has changed then."""
    protocol = Http()
    steps = protocol.requests(POST + POST)
    effect = next(steps)
    assert isinstance(effect, Effect)
    for error in ("200", "NOT_COORDINATOR", "5030", ""):
        with pytest.raises(ValueError, match="429 can, and 503"):
            protocol.refuse(effect, error)
    assert protocol.outstanding == 1
    assert kinds([next(steps), next(steps)]) == [Delivered, Effect]
    with pytest.raises(ValueError, match="effect 1: it is over"):
        protocol.refuse(effect, "503")
    early = Http()
    effect = next(early.requests(POST))
    assert isinstance(effect, Effect)
    assert kinds(list(early.replies(OK))) == [Answer]
    with pytest.raises(ValueError, match="effect 1: it is over"):
        early.refuse(effect, "503")


def test_a_real_client_is_refused() -> None:
    """http.client reads the refusals, keeps its connection, and the server sees only what was not refused."""
    paid: list[bytes] = []

    class Shop(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            paid.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    def refuses(effect: Effect) -> str:
        return "503" if effect.number % 2 else ""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop) as server, contextlib.closing(lease_port()) as port:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Watcher(port.number, server.server_port, Http, refuses) as watcher:
            client = http.client.HTTPConnection("127.0.0.1", port.number, timeout=5)
            with contextlib.closing(client):
                replies = []
                for body in (b"a" * 3 * LIMIT, b"b", b"c", b"d" * 3 * LIMIT):
                    client.request("POST", "/pay", body)
                    with client.getresponse() as reply:
                        replies.append((reply.status, reply.getheader("Retry-After"), reply.read()))
            assert len(watcher.connections) == 1
        server.shutdown()
        thread.join()
    assert replies == [(503, "1", b""), (201, None, b""), (503, "1", b""), (201, None, b"")]
    assert paid == [b"b", b"d" * 3 * LIMIT]
    assert not watcher.torn
