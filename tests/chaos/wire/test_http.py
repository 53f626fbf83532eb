"""HTTP/1.1 as steps: what an effect is, where it ends, which reply is its; and never a byte more, less or elsewhere."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import http.server
import socket
import threading
import time
from typing import TYPE_CHECKING, Literal, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.services.ports import lease_port
from chaos.wire.http import Http
from chaos.wire.http_heads import LIMIT
from chaos.wire.steps import Answer, Delivered, Effect, Pass, Raw
from tests.chaos.wire import fuzzing
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable, Iterator

    from chaos.wire.steps import Step, WireProtocol

Side: TypeAlias = Literal[">", "<"]
Piece: TypeAlias = tuple[Side, bytes]

HOST = b"Host: shop\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CREATED = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def post(body: bytes = b"order-1", *lines: bytes, method: bytes = b"POST") -> bytes:
    """A request with a body of known length."""
    more = b"".join(line + b"\r\n" for line in lines)
    return method + b" /pay HTTP/1.1\r\n" + HOST + more + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunks(*parts: bytes, trailers: bytes = b"") -> bytes:
    """A body in chunks."""
    return b"".join(b"%x;x=y\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n" + trailers + b"\r\n"


CHUNKED_HEAD = b"POST /pay HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
CHUNKED_REPLY_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def play(pieces: Iterable[Piece], protocol: WireProtocol | None = None) -> list[tuple[Side, Step]]:
    """Every step of a connection on which `pieces` arrive, with its direction; bytes must come out as they went in."""
    protocol = protocol or Http()
    steps: list[tuple[Side, Step]] = []
    went_in: dict[Side, bytearray] = {">": bytearray(), "<": bytearray()}
    ends: list[Piece] = [(">", b""), ("<", b"")]
    for side, data in [*pieces, *ends]:
        went_in[side] += data
        steps.extend((side, step) for step in (protocol.requests if side == ">" else protocol.replies)(data))
    for side, whole in went_in.items():
        came_out = [step.data for at, step in steps if at == side and isinstance(step, Pass | Effect | Answer)]
        assert b"".join(came_out) == whole
        assert b"" not in came_out
    return steps


def merged(steps: Iterable[tuple[Side, Step]]) -> list[Step]:
    """The steps without their direction; neighbouring `Pass` of one direction are one."""
    merged: list[tuple[Side, Step]] = []
    for side, step in steps:
        if isinstance(step, Pass) and merged and merged[-1][0] == side and isinstance(last := merged[-1][1], Pass):
            merged[-1] = (side, Pass(last.data + step.data))
        else:
            merged.append((side, step))
    return [step for _, step in merged]


def said(steps: Iterable[tuple[Side, Step]]) -> list[Step]:
    """The steps that say more than bytes."""
    return [step for _, step in steps if not isinstance(step, Pass)]


def effect(data: bytes, number: int = 1, site: str = "http.post", body: bytes | None = None) -> Effect:
    """The effect that is all of `data`."""
    head, _, rest = data.partition(b"\r\n\r\n")
    return Effect(number, site, (head + b"\r\n\r\n", rest if body is None else body), data)


def split(data: bytes, size: int) -> list[bytes]:
    """`data` in pieces of `size` bytes."""
    return [data[at : at + size] for at in range(0, len(data), size)]


POST = post()
LARGE = post(b"k" * LIMIT)
FULL = post(b"k" * (LIMIT - len(post(b"k" * 10_000)) + 10_000))  # head and body together are as long as the limit
EXPECTING = post(b"order-1", b"Expect: 100-continue")
EXPECTING_HEAD = EXPECTING.removesuffix(b"order-1")
IN_CHUNKS = CHUNKED_HEAD + chunks(b"ord", b"er-1", trailers=b"Digest: x\r\n")
HEAD = b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n"
REFUSED = OK.replace(b"200 OK", b"409 Conflict")
FAILED = OK.replace(b"200 OK", b"503 Busy")
ENDLESS_HEAD = b"HTTP/1.0 200 OK\r\n\r\n"
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
UNCHANGED = b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"
STREAMED = CHUNKED_REPLY_HEAD + chunks(b"pa", b"id", trailers=b"Digest: x\r\n")
ZIPPED = post(gzip.compress(b"order-1", mtime=0), b"Content-Encoding: gzip")
UPGRADING = post(b"order-1", b"Connection: Upgrade", b"Upgrade: h2c")
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

CASES: dict[str, tuple[list[Piece], list[Step]]] = {
    "a safe request passes": ([(">", GET), ("<", OK)], [Pass(GET), Pass(OK)]),
    "an effect and its reply": ([(">", POST), ("<", OK)], [effect(POST), Delivered(1), Answer(1, "done", OK)]),
    "without a body": (
        [(">", b"DELETE /1 HTTP/1.1\r\n" + HOST + b"\r\n"), ("<", NO_CONTENT)],
        [
            effect(b"DELETE /1 HTTP/1.1\r\n" + HOST + b"\r\n", site="http.delete"),
            Delivered(1),
            Answer(1, "done", NO_CONTENT),
        ],
    ),
    "a refusal": ([(">", POST), ("<", REFUSED)], [effect(POST), Delivered(1), Answer(1, "refused", REFUSED)]),
    "a failure": ([(">", POST), ("<", FAILED)], [effect(POST), Delivered(1), Answer(1, "unclear", FAILED)]),
    "no reply": ([(">", POST)], [effect(POST), Delivered(1)]),
    "a reply cut short": ([(">", POST), ("<", OK[:-1])], [effect(POST), Delivered(1), Answer(1, "done", OK[:-1])]),
    "a reply's head cut short": ([(">", POST), ("<", OK[:20])], [effect(POST), Delivered(1), Pass(OK[:20])]),
    "a request cut short": ([(">", POST[:-1])], [effect(POST[:-1])]),
    "a request's head cut short": ([(">", POST[:20])], [Pass(POST[:20])]),
    "keep-alive": (
        [(">", POST), ("<", OK), (">", GET), ("<", OK), (">", POST), ("<", REFUSED)],
        [
            *(effect(POST), Delivered(1), Answer(1, "done", OK)),
            *(Pass(GET), Pass(OK)),
            *(effect(POST, 2), Delivered(2), Answer(2, "refused", REFUSED)),
        ],
    ),
    "pipelined": (
        [(">", POST + GET + b"\r\n" + POST), ("<", CREATED + OK + FAILED)],
        [
            *(effect(POST), Delivered(1), Pass(GET + b"\r\n"), effect(POST, 2), Delivered(2)),
            *(Answer(1, "done", CREATED), Pass(OK), Answer(2, "unclear", FAILED)),
        ],
    ),
    "chunks both ways": (
        [(">", IN_CHUNKS + GET), ("<", STREAMED + OK)],
        [
            *(effect(IN_CHUNKS, body=b"order-1"), Delivered(1), Pass(GET)),
            *(Answer(1, "done", CHUNKED_REPLY_HEAD), Pass(STREAMED[len(CHUNKED_REPLY_HEAD) :] + OK)),
        ],
    ),
    "no bodies after HEAD, 204 and 304": (
        [(">", HEAD + POST + GET + POST), ("<", OK[:-2] + NO_CONTENT + UNCHANGED + CREATED)],
        [
            *(Pass(HEAD), effect(POST), Delivered(1), Pass(GET), effect(POST, 2), Delivered(2)),
            *(Pass(OK[:-2]), Answer(1, "done", NO_CONTENT), Pass(UNCHANGED), Answer(2, "done", CREATED)),
        ],
    ),
    "a reply until the server closes": (
        [(">", POST), ("<", ENDLESS_HEAD + b"paid" + OK)],
        [effect(POST), Delivered(1), Answer(1, "done", ENDLESS_HEAD), Pass(b"paid" + OK)],
    ),
    "a reply before the body is complete": (
        [(">", LARGE[:-9]), ("<", REFUSED), (">", LARGE[-9:] + POST), ("<", OK)],
        [
            Effect(1, "http.post", effect(LARGE[:LIMIT]).contents, LARGE[:LIMIT]),
            *(Pass(LARGE[LIMIT:-9]), Answer(1, "refused", REFUSED), Pass(LARGE[-9:]), Delivered(1)),
            *(effect(POST, 2), Delivered(2), Answer(2, "done", OK)),
        ],
    ),
    "too large to be kept": (
        [(">", LARGE + GET), ("<", OK + OK)],
        [
            Effect(1, "http.post", effect(LARGE[:LIMIT]).contents, LARGE[:LIMIT]),
            *(Pass(LARGE[LIMIT:]), Delivered(1), Pass(GET), Answer(1, "done", OK), Pass(OK)),
        ],
    ),
    "as large as can be kept": (
        [(">", FULL + GET), ("<", OK + OK)],
        [effect(FULL), Delivered(1), Pass(GET), Answer(1, "done", OK), Pass(OK)],
    ),
    "a large reply": (
        [(">", POST), ("<", b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536))],
        [
            *(effect(POST), Delivered(1)),
            Answer(1, "done", (b"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + bytes(65536))[:LIMIT]),
            Pass(bytes(42)),
        ],
    ),
    "Expect: 100-continue": (
        [(">", EXPECTING_HEAD), ("<", CONTINUE), (">", b"order-1"), ("<", OK)],
        [
            *(effect(EXPECTING_HEAD), Pass(CONTINUE), Pass(b"order-1"), Delivered(1)),
            Answer(1, "done", OK),
        ],
    ),
    "Expect: 100-continue, refused": (
        [(">", EXPECTING_HEAD), ("<", REFUSED)],
        [effect(EXPECTING_HEAD), Answer(1, "refused", REFUSED)],
    ),
    "Expect of a client that does not wait": (
        [(">", EXPECTING + GET), ("<", CONTINUE + OK)],
        [effect(EXPECTING_HEAD), Pass(b"order-1"), Delivered(1), Pass(GET), Pass(CONTINUE), Answer(1, "done", OK)],
    ),
    "a compressed body": ([(">", ZIPPED)], [effect(ZIPPED, body=b"order-1"), Delivered(1)]),
    "an upgrade that the server ignores": (
        [(">", UPGRADING), ("<", OK), (">", POST)],
        [effect(UPGRADING), Delivered(1), Answer(1, "done", OK), effect(POST, 2), Delivered(2)],
    ),
    "a reply to nothing": (
        [("<", REFUSED), (">", POST), ("<", OK)],
        [Pass(REFUSED), effect(POST), Delivered(1), Answer(1, "done", OK)],
    ),
}

RAW: dict[str, tuple[list[Piece], list[Step], str]] = {
    "an upgrade": ([(">", UPGRADING), ("<", SWITCHED), (">", POST)], [effect(UPGRADING), Delivered(1)], "101"),
    "a tunnel": ([(">", b"CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n\r\n" + POST)], [], "CONNECT"),
    "HTTP/2": ([(">", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + POST)], [], "HTTP/2"),
    "TLS": ([(">", b"\x16\x03\x01\x02"), (">", POST)], [], "not HTTP/1.1"),
    "another protocol": ([(">", b"PING\r\n"), ("<", b"+PONG\r\n"), (">", POST)], [], "not HTTP/1.1"),
    "a server that speaks first": ([("<", b"220 mail ESMTP\r\n"), (">", POST)], [], "not HTTP/1.1"),
    "a reply that is none": ([(">", POST), ("<", b"ICY 200 OK\r\n\r\n")], [effect(POST), Delivered(1)], "not HTTP/1.1"),
    "two lengths": ([(">", post(b"order-1", b"Content-Length: 3") + POST)], [], "conflicting"),
    "an unknown coding": ([(">", post(b"", b"Transfer-Encoding: gzip, chunked") + POST)], [], "chunked"),
    "an endless head": ([(">", POST[:-20] + b"X: " + b"y" * LIMIT)], [], "a head of more"),
    "a broken chunk": (
        [(">", CHUNKED_HEAD + b"3\r\nabc\r\nx\r\n" + POST)],
        [effect(CHUNKED_HEAD + b"3\r\nabc\r\nx\r\n", body=b"abc")],
        "no chunk size",
    ),
    "a chunk that is longer than it says": (
        [(">", CHUNKED_HEAD + b"3\r\nabcd\r\n" + POST)],
        [effect(CHUNKED_HEAD + b"3\r\nabcd\r\n", body=b"abc")],
        "no chunk end",
    ),
    "an endless chunk size": (
        [(">", CHUNKED_HEAD + b"0" * 5000)],
        [effect(CHUNKED_HEAD + b"0" * 4096, body=b"")],
        "a line of more",
    ),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_each_message_is_named_and_ends_where_it_ends(case: str, size: int) -> None:
    """Each case gives exactly its steps, whatever the size of the pieces that arrive."""
    pieces, expected = CASES[case]
    cut = [(side, part) for side, data in pieces for part in split(data, size)]
    assert merged(play(cut)) == expected


@pytest.mark.parametrize("case", RAW)
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_what_is_not_understood_is_said_once_and_passes(case: str, size: int) -> None:
    """What was understood is named, then one reason is said, then there are only bytes."""
    pieces, expected, reason = RAW[case]
    steps = said(play((side, part) for side, data in pieces for part in split(data, size)))
    assert isinstance(steps[-1], Raw)
    assert reason in steps[-1].reason
    assert steps[:-1] == expected


def test_what_is_not_understood_is_told_at_once() -> None:
    """A client that speaks TLS or Redis is not kept waiting for the end of an HTTP head, nor is its server."""
    for first in (b"\x16", b"PING\r\n", b"*1\r\n", b"GET / \x00"):
        assert [type(step) for step in Http().requests(first)] == [Raw, Pass]
    assert [type(step) for step in Http().replies(b"220")] == [Raw, Pass]


def test_nothing_of_an_effect_is_said_before_it_is_complete() -> None:
    """Until its last byte has arrived, nothing of a small effect is sent on."""
    protocol = Http()
    assert not [step for part in split(IN_CHUNKS[:-1], 1) for step in protocol.requests(part)]
    assert [type(step) for step in protocol.requests(IN_CHUNKS[-1:])] == [Effect, Delivered]


def test_what_one_side_kept_comes_out_when_the_other_turned_raw() -> None:
    """Bytes kept back when the connection turns raw are sent with the next ones of their direction."""
    protocol = Http()
    assert list(protocol.requests(POST[:-1])) == []
    assert [type(step) for step in protocol.replies(b"gibberish")] == [Raw, Pass]
    assert list(protocol.requests(POST[-1:])) == [Pass(POST)]


bodies = st.binary(max_size=40) | st.binary(min_size=1, max_size=9).map(lambda some: some * (LIMIT // 4))


@st.composite
def exchanges(draw: st.DrawFn) -> list[Piece]:
    """One to four requests, at times pipelined, and a valid reply to each of them."""
    conversation: list[Piece] = []
    for _ in range(draw(st.integers(1, 4))):
        methods = [
            draw(st.sampled_from([b"GET", b"HEAD", b"POST", b"PUT", b"PATCH"])) for _ in range(draw(st.integers(1, 3)))
        ]
        conversation.append((">", b"".join(draw(requests(method)) for method in methods)))
        conversation.append(("<", b"".join(draw(replies(method)) for method in methods)))
    return conversation


@st.composite
def requests(draw: st.DrawFn, method: bytes) -> bytes:
    """A valid request."""
    body = draw(bodies)
    if draw(st.booleans()):
        line = draw(
            st.sampled_from([b"A: b", b"Expect: 100-continue", b"X-Folded: a\r\n b", b"Connection: keep-alive"])
        )
        return post(body, line, method=method)
    return CHUNKED_HEAD.replace(b"POST", method) + chunks(*draw(st.lists(bodies.filter(bool), max_size=3)))


@st.composite
def replies(draw: st.DrawFn, method: bytes) -> bytes:
    """A valid reply to a request of that method, at times after an interim one."""
    status = b"HTTP/1.1 %d X\r\n" % draw(st.sampled_from([200, 201, 302, 404, 409, 500, 503]))
    body = draw(bodies)
    bodiless = status + b"Content-Length: %d\r\n\r\n" % len(body)
    in_chunks = status + b"Transfer-Encoding: chunked\r\n\r\n"
    if method == b"HEAD":
        whole = draw(st.sampled_from([bodiless, in_chunks, status + b"\r\n"]))
    else:
        parts = draw(st.lists(bodies.filter(bool), max_size=3))
        whole = draw(st.sampled_from([bodiless + body, in_chunks + chunks(*parts), NO_CONTENT, UNCHANGED]))
    return draw(st.sampled_from([b"", CONTINUE])) + whole


def shredded(rng: random.Random, pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The same bytes in the same order, in other pieces: from one byte to all at once."""
    for side, data in pieces:
        at, usual = 0, rng.choice([1, 3, 50, 5000, len(data) + 1])
        step = max(usual, len(data) // 2000)
        while at < len(data):
            size = rng.randint(1, 2 * step)
            yield side, data[at : at + size]
            at += size


@given(pieces=exchanges(), rng=st.randoms(use_true_random=False))
def test_how_the_bytes_are_cut_does_not_matter(pieces: list[Piece], rng: random.Random) -> None:
    """Any conversation gives the same steps, up to the boundaries of `Pass`, in whatever pieces it arrives."""
    whole = said(play(pieces))
    assert said(play(shredded(rng, pieces))) == whole
    requests = b"".join(data for side, data in pieces if side == ">")
    assert not [step for step in whole if isinstance(step, Raw)], "the conversation is valid"
    numbers = [step.number for step in whole if isinstance(step, Effect)]
    assert numbers == [step.number for step in whole if isinstance(step, Delivered)], requests[:200]
    assert numbers == [step.number for step in whole if isinstance(step, Answer)]
    assert numbers == list(range(1, len(numbers) + 1))


@given(pieces=st.lists(st.tuples(st.sampled_from(["<", ">"]), st.binary(max_size=60))), rng=st.randoms())
def test_garbage_passes_as_it_is(pieces: list[Piece], rng: random.Random) -> None:
    """Any bytes, in any pieces, raise nothing and come out as they went in."""
    play(shredded(rng, pieces))


VALID: dict[Side, list[bytes]] = {
    ">": [POST, GET, IN_CHUNKS, EXPECTING, ZIPPED, UPGRADING, HEAD],
    "<": [OK, STREAMED, CONTINUE, NO_CONTENT, UNCHANGED, REFUSED, FAILED],
}
ODD = [data for pieces, _, _ in RAW.values() for _, data in pieces if len(data) < 1000]


@pytest.mark.slow
def test_fuzz(shop: int) -> None:
    """Ten million bytes of mutated conversations, real and made, and of noise go through unchanged."""
    real = dict(zip(fuzzing.SIDES, recorded(shop), strict=True))

    def conversation(dice: random.Random) -> tuple[bytes, bytes]:
        if dice.random() < 0.05:
            return dice.randbytes(dice.randint(1, 3000)), dice.randbytes(dice.randint(1, 3000))
        made: list[bytes] = []
        for side in fuzzing.SIDES:
            whole = [real[side]] if dice.random() < 0.2 else dice.choices(VALID[side], k=dice.randint(1, 300))
            whole += [LARGE, FULL][: dice.randrange(3)] if side == ">" and dice.random() < 0.05 else []
            where = dice.randrange(len(whole) + 1)
            odd = [dice.choice(ODD)] if dice.random() < 0.1 else []
            parts = (b"".join(whole[:where]), b"".join(odd + whole[where:]))
            made.append(parts[0] + (fuzzing.mutated(parts[1], dice) if dice.random() < 0.5 else parts[1]))
        return made[0], made[1]

    began = time.monotonic()
    counted, total, said = fuzzing.fuzz(Http, conversation, 10_000_000)
    print(f"{counted / 1e6:.1f} of {total / 1e6:.1f} MB, {said} steps, {time.monotonic() - began:.1f} s")  # noqa: T201
    assert said > 20_000


def recorded(shop: int) -> tuple[bytes, bytes]:
    """What a real client and a real server said to each other, many times over."""
    port = lease_port()
    with contextlib.closing(port), Watcher(port.number, shop, Http) as watcher:
        client = http.client.HTTPConnection("127.0.0.1", port.number, timeout=5)
        with contextlib.closing(client):
            for number in range(100):
                client.request("POST", "/pay" if number % 3 else "/none", b"order-%d" % number * number)
                with client.getresponse() as reply:
                    reply.read()
        [connection] = watcher.connections
    return bytes(connection.requests), bytes(connection.replies)


class _Shop(http.server.BaseHTTPRequestHandler):
    """Answers what it is asked: 201 to /pay, 404 to anything else."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Read the body, whatever its form, and answer."""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while self.rfile.readline() != b"0\r\n":
                pass
            self.rfile.readline()
        else:
            self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(201 if self.path == "/pay" else 404)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"done")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def shop() -> Iterator[int]:
    """The port of a real server."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Shop) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def test_real_client_and_server(shop: int) -> None:
    """Between http.client and http.server, on one kept-alive connection, each POST is an effect with its own answer."""
    port = lease_port()
    with contextlib.closing(port), Watcher(port.number, shop, Http) as watcher:
        client = http.client.HTTPConnection("127.0.0.1", port.number, timeout=5)
        with contextlib.closing(client):
            answers = []
            bodies: list[tuple[str, bytes | Iterator[bytes]]] = [
                ("/pay", b"order-1"),
                ("/pay", iter([b"order", b"-2"])),
                ("/none", b"x" * 3 * LIMIT),
            ]
            for path, body in bodies:
                client.request("POST", path, body)
                with client.getresponse() as reply:
                    answers.append((reply.status, reply.read()))
        assert answers == [(201, b"done"), (201, b"done"), (404, b"done")]
        [connection] = watcher.connections
        effects = [step for step in connection.steps if isinstance(step, Effect)]
        outcomes = [step.outcome for step in connection.steps if isinstance(step, Answer)]
    assert [effect.site for effect in effects] == ["http.post"] * 3
    assert outcomes == ["done", "done", "refused"]
    assert b"order-1" in effects[0].contents[1]
    assert b"order-2" in effects[1].contents[1]
    assert not watcher.torn


def test_real_server_and_a_client_that_pipelines_and_waits(shop: int) -> None:
    """Of a raw socket's pipelined and expecting requests each has its answer, in order; a recording says the same."""
    port = lease_port()
    with contextlib.closing(port), Watcher(port.number, shop, Http) as watcher:
        with socket.create_connection(("127.0.0.1", port.number), timeout=5) as client:
            client.sendall(POST + POST.replace(b"/pay", b"/none") + EXPECTING_HEAD)
            received = b""
            while b"100 Continue" not in received:
                received += client.recv(4096)
            client.sendall(b"order-1")
            while received.count(b"done") < 3:
                received += client.recv(4096)
        [connection] = watcher.connections
        assert not watcher.torn
    steps = [step for step in connection.steps if isinstance(step, Answer)]
    assert [(step.number, step.outcome) for step in steps] == [(1, "done"), (2, "refused"), (3, "done")]
    recording: list[Piece] = [(">", bytes(connection.requests)), ("<", bytes(connection.replies))]
    replayed = [step for _, step in play(recording)]
    for kind in (Effect, Answer):  # the server may answer the first before it has been sent the second
        assert [one for one in replayed if type(one) is kind] == [one for one in connection.steps if type(one) is kind]
