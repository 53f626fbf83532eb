"""Postgres as steps: what is said when, to a server that answers anything, and never a byte more, less or elsewhere."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.wire.postgres import LONGEST, Postgres
from chaos.wire.postgres_messages import message
from chaos.wire.postgres_transaction import LIMIT, Ask
from chaos.wire.steps import Answer, Drop, Effect, Insert, Pass, Raw, Reply, Wait
from tests.chaos.wire.pg_client import (
    COPY_DONE,
    H,
    S,
    bind,
    data,
    execute,
    parse,
    query,
    run,
    start_up,
)
from tests.chaos.wire.pg_play import ADD, BLOCK, HELLO, PARTS, Play, messages, play, seen
from tests.chaos.wire.pg_server import GREETING, Server


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=8), st.integers(0, 1 << 30))
def test_pieces(sent: list[bytes], seed: int) -> None:
    """However it is cut, each byte is in one step, the effects are the same, and what the client has."""
    whole, cut = play(b"".join(sent)), play(b"".join(sent), seed=seed)
    assert (whole.raw, cut.raw) == ("", "")
    assert cut.effects == whole.effects
    assert cut.answers == whole.answers
    assert cut.client_has == whole.client_has
    assert cut.server.committed == whole.server.committed
    assert (whole.unforeseen, cut.unforeseen) == (0, 0)
    assert whole.protocol.outstanding == 0


NOISE = st.lists(st.binary(max_size=40))


@given(requests=NOISE, replies=NOISE, begun=st.booleans())
def test_noise(*, requests: list[bytes], replies: list[bytes], begun: bool) -> None:
    """Noise passes, from either side; once it is raw, as it is."""
    protocol = Postgres()
    if begun:
        assert list(protocol.requests(HELLO)) == [Pass(HELLO)]
        assert list(protocol.replies(GREETING)) == [Pass(GREETING)]
    out: dict[str, list[bytes]] = {">": [], "<": []}
    raw = False
    for side, piece in [*((">", one) for one in requests), *(("<", one) for one in replies), ("<", b""), (">", b"")]:
        for step in protocol.requests(piece) if side == ">" else protocol.replies(piece):
            if isinstance(step, Wait):
                break
            assert isinstance(step, Pass) or not raw
            raw = raw or isinstance(step, Raw)
            out[side] += [step.data] if isinstance(step, Pass | Effect | Answer | Drop) else []
    if not any(piece[:1] in b"QEFS" for piece in requests):
        assert b"".join(out[">"]) == b"".join(requests)
    assert b"".join(out["<"]) == b"".join(replies)


RAW: list[tuple[bytes, str]] = [
    (b"\x16\x03\x01" + b"\0" * 60, "TLS"),
    (start_up(2 << 16), "version 2.0"),
    (b"GET / HTTP/1.1\r\n\r\n", "not Postgres: a start"),
    (HELLO + b"?\0\0\0\4", "not Postgres: a request"),
    (HELLO + b"Q\0\0\0\3", "not Postgres: a request"),
    (HELLO + b"Q" + struct.pack("!I", LONGEST + 1), "not Postgres: a request"),
    (HELLO + message(b"P", b"no end"), "not well formed"),
    (HELLO + message(b"B", b"\0no end"), "not well formed"),
]


@pytest.mark.parametrize(("sent", "reason"), RAW)
def test_raw(sent: bytes, reason: str) -> None:
    """What is no Postgres is said once, and passes with everything behind it, either way."""
    protocol = Postgres()
    steps = list(protocol.requests(sent))
    [raw] = [step for step in steps if isinstance(step, Raw)]
    assert reason in raw.reason
    assert b"".join(step.data for step in steps if isinstance(step, Pass)) == sent
    assert list(protocol.requests(query(ADD))) == [Pass(query(ADD))]
    assert list(protocol.replies(b"Z?")) == [Pass(b"Z?")]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (message(b"Z", b"I"), "was asked nothing"),
        (message(b"1", b""), "a reply '1' to nothing"),
        (message(b"C", b"SELECT 1\0"), "a reply 'C' to nothing"),
        (message(b"?", b""), "a reply of the kind '?'"),
        (b"Z\0\0\0\3I", "a reply beginning"),
    ],
)
def test_raw_replies(said: bytes, reason: str) -> None:
    """What no server says here is said once, and nothing of it is lost."""
    protocol = Postgres()
    assert list(protocol.requests(HELLO)) == [Pass(HELLO)]
    whole = GREETING + message(b"N", b"\0") + said
    steps = list(protocol.replies(whole))
    [reason_said] = [step.reason for step in steps if isinstance(step, Raw)]
    assert reason in reason_said
    assert b"".join(step.data for step in steps if isinstance(step, Pass)) == whole


def test_raw_while_replies_are_kept() -> None:
    """What was kept of the server's replies goes to the client, not back."""
    played = Play()
    played.client_sends(HELLO)
    played.server.says = message(b"T", b"\0\0")
    played.client_sends(query("CALL x()"))
    assert played.client_has == GREETING
    played.client_sends(b"?")
    played.client_sends(b"????")
    assert played.raw
    played.end()
    assert played.client_has == GREETING + message(b"T", b"\0\0")


def test_encryption_is_declined() -> None:
    """Requests for encryption are answered by the wire, and the server hears nothing of them."""
    protocol = Postgres()
    for code in (80877103, 80877104):
        asked = struct.pack("!iI", 8, code)
        assert list(protocol.requests(asked)) == [Drop(asked), Reply(b"N")]
    assert protocol.farewell() == b""
    assert list(protocol.requests(HELLO)) == [Pass(HELLO)]
    assert protocol.farewell() == b"X\0\0\0\4"


STREAMED = [(10, b"B"), (20, b"M\1"), (30, b"C"), (40, b"M\0"), (50, b"M\1"), (60, b"C"), (70, b"")]


@pytest.mark.parametrize("cut", [1, 2, 33])
def test_a_stream_in_pieces(cut: int) -> None:
    """However what is streamed is cut, the ends that a confirmation can be about are the same."""
    protocol = Postgres()
    list(protocol.requests(HELLO))
    list(protocol.replies(GREETING))
    list(protocol.requests(query("START_REPLICATION SLOT s LOGICAL 0/0")))
    frames = [message(b"d", struct.pack("!cQQQ", b"w", at, at, 0) + said) for at, said in STREAMED]
    streamed = message(b"W", bytes(3)) + b"".join(frames)
    for at in range(0, len(streamed), cut):
        list(protocol.replies(streamed[at : at + cut]))
    confirming = []
    for place in range(0, 80, 10):
        sent = message(b"d", struct.pack("!cQQQQb", b"r", 0, place, 0, 0, 0))
        steps = list(protocol.requests(sent))
        assert b"".join(step.data for step in steps if isinstance(step, Pass | Effect)) == sent
        confirming += [place for step in steps if isinstance(step, Effect)]
    assert confirming == [30, 40, 60]


@pytest.mark.parametrize("size", [4, 32, 256])
def test_cancelling(size: int) -> None:
    """A key of any length cancels, and a request to cancel passes without a word."""
    protocol, key = Postgres(), b"\0\0\0\7" + bytes(size)
    list(protocol.requests(HELLO))
    list(protocol.replies(message(b"K", key)))
    request = protocol.cancel_request
    assert request == struct.pack("!iI", 12 + size, 80877102) + key
    other = Postgres()
    assert list(other.requests(request)) == [Pass(request)]
    assert list(other.replies(b"")) == []


ASKED: dict[str, tuple[bytes, str]] = {
    "a block": (query("BEGIN") + query(ADD) + query("COMMIT"), "query"),
    "a block in one": (query(f"BEGIN; {ADD}; COMMIT"), "query"),
    "a text": (query(f"{ADD}; {ADD}"), "query"),
    "a statement": (query(ADD), "sync"),
    "a batch": (run(ADD) + S, "sync"),
    "a pipeline": (BLOCK + S, "part of a pipeline"),
    "on arrival": (query("CALL x()"), "on arrival"),
    "a copy": (query("COPY t FROM STDIN") + data("x") + COPY_DONE, "the end of a COPY"),
}


@pytest.mark.parametrize("case", [case for case, (_, holds) in ASKED.items() if holds in {"query", "sync"}])
def test_refusal(case: str) -> None:
    """What is refused ends with that error and nothing is committed; afterwards all is as usual."""
    sent, _ = ASKED[case]
    refusing = ["40001"]
    played = Play(met=lambda _: refusing.pop() if refusing else "")
    played.client_sends(HELLO)
    played.client_sends(sent)
    assert seen(played)[-2:] == ["40001", "I"]
    assert "COMMIT" not in seen(played)
    assert played.server.committed == []
    assert played.protocol.outstanding == 0
    played.client_sends(query("ROLLBACK") + sent)
    assert played.answers == [(1, "refused"), (2, "done")]
    assert len(played.server.committed) == sent.count(b"INSERT")
    played.end()


@pytest.mark.parametrize("case", ASKED)
def test_refusals_that_cannot_be(case: str) -> None:
    """Whoever asks for what cannot be is told what can."""
    sent, holds = ASKED[case]
    reasons: list[str] = []
    played = Play()

    def met(effect: Effect) -> str:
        for error in ("NOT_COORDINATOR", "40001"):
            try:
                played.protocol.refuse(effect, error)
            except ValueError as reason:
                reasons.append(str(reason))
        return ""

    played.met = met
    played.client_sends(HELLO + sent)
    assert "is no SQLSTATE" in reasons[0]
    assert reasons[1:] == [] if holds in {"query", "sync"} else f"as {holds} cannot be refused" in reasons[1]
    played.end()


@pytest.mark.parametrize("case", ["a block", "a block in one", "a text", "a statement", "a batch", "a pipeline"])
def test_question_fails(case: str) -> None:
    """If the question is cancelled, or takes too long, then the client's commit was: an error, and never success."""
    server = Server()
    server.question_fails = b"57014"
    played = play(ASKED[case][0], server=server)
    assert "57014" in seen(played)
    assert "COMMIT" not in seen(played)[seen(played).index("57014") :]
    assert seen(played).count("57014") == 1
    assert len([one for one in seen(played) if one in "ITE"]) == ASKED[case][0].count(b"Q") + ASKED[case][0].count(S)
    assert (played.effects, played.server.committed) == ([], [])


@pytest.mark.parametrize("case", ASKED)
def test_evidence(case: str) -> None:
    """Where the server was asked for the transaction's id, that is the evidence; elsewhere there is none."""
    sent, holds = ASKED[case]
    [effect] = play(sent).effects
    assert effect.evidence == (() if holds in {"on arrival", "the end of a COPY"} else ("xid:7",))


@pytest.mark.parametrize(
    ("value", "evidence"),
    [
        (b"4294967303", ("xid:7",)),
        (b"18446744073709551615", ("xid:4294967295",)),
        (b"9" * 5000, ()),
        (b"-7", ()),
        (b"\xb2", ()),
        (None, ()),
    ],
)
def test_ids(value: bytes | None, evidence: tuple[str, ...]) -> None:
    """An id is said without its epoch, as rows have it; what is no number is an id all the same, and no evidence."""
    question = Ask()
    question.answer(value)
    assert (question.assigned, question.evidence) == (value is not None, evidence)


def test_question_ends_the_session() -> None:
    """If the session is ended at the question, the client is told, and the rest passes."""
    server = Server()
    played = Play(server)
    played.client_sends(HELLO + query("BEGIN") + query(ADD))
    server.ends_at = b"onecharge"
    played.client_sends(query("COMMIT"))
    played.end()
    assert seen(played)[-1] == "57P01"
    assert played.effects == []


def test_server_ends() -> None:
    """If the server ends while something waits for it, that passes, and nothing is an effect any more."""
    for sent in (query(ADD), query("COMMIT"), run(ADD) + S, query(f"{ADD}; {ADD}"), query("SELECT ROWS")):
        played = Play()
        played.client_sends(HELLO + query("BEGIN") * (b"COMMIT" in sent) + query(ADD))
        before = len(played.effects)
        played.server.gone = True
        played.client_sends(sent + query(ADD))
        played.end()
        assert len(played.effects) == before


def test_error_at_the_end() -> None:
    """An error that ends the session in the middle of a commit leaves it unclear."""
    played = Play()
    played.client_sends(HELLO)
    played.server.ends_at = S
    played.client_sends(run(ADD) + S)
    assert played.answers == []
    played.end()
    assert played.answers == [(1, "unclear")]


def test_large_replies() -> None:
    """Replies that are too large to be kept go on, but the end of a statement waits for its commit all the same."""
    for text in ("INSERT ROWS", "INSERT ROWS; SELECT ROWS"):
        played = Play(Server(b"x" * LIMIT))
        played.client_sends(HELLO + query(text))
        assert seen(played) == [*(one.split()[0] for one in text.split("; ")), "I"]
        assert len(messages(bytes(played.client_has))) > 5
        assert LIMIT < played.had[0] < len(played.client_has) - 5
        played.end()
        server = Server(b"x" * LIMIT)
        late = play(query(text.replace("INSERT", "INSERT LATE")), server=server)
        assert seen(late)[-2:] == ["42601", "I"]


def test_waiting_for_a_sync() -> None:
    """What commits at once is an effect with its Sync, wherever that is cut; if none comes, then alone."""
    call = run("CALL x()")
    for at in range(len(S) + 1):
        played = Play()
        played.client_sends(HELLO)
        played.client_sends(call + S[:at])
        assert played.protocol.kept == (at < len(S))
        played.client_sends(S[at:])
        assert [effect.data[-5:] for effect in played.effects] == [S]
        assert not played.protocol.kept
        played.end()
    for last in (b"", call, H):
        played = Play()
        played.client_sends(HELLO)
        played.client_sends(call + last)
        if not last:
            assert list(played.protocol.overdue()) != []
            assert not played.protocol.kept
            continue
        assert len(played.effects) == 1
        played.end()
    played = Play()
    played.client_sends(HELLO + call)
    played.end()


def test_questions_are_named_apart() -> None:
    """Each question has a name of its own, so that one that was left over is in nobody's way."""
    played = play(*[query(ADD)] * 3)
    names = [step.data for _, step in played.steps if isinstance(step, Insert) and b"onecharge." in step.data]
    assert [b"onecharge.%d\0" % number in name for number, name in enumerate(names, 1)] == [True] * 3


def test_contents() -> None:
    """All that a transaction was told and answered is looked at for keys, as much as there is room for."""
    played = play(
        query("BEGIN"),
        query("INSERT ROWS order-1"),
        parse("INSERT order-2") + bind(b"\1order-3", None, b"order-4") + execute() + S,
        query("COMMIT"),
        query("INSERT '" + "x" * LIMIT + "order-5'"),
        server=Server(b"order-6"),
    )
    first, second = played.effects
    assert all(any(b"order-%d" % number in piece for piece in first.contents) for number in (1, 2, 3, 4, 6))
    assert sum(map(len, second.contents)) <= 2 * LIMIT
