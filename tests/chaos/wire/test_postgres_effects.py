"""What is an effect on a Postgres server, and when: each case on a real server, through the real wire."""

from __future__ import annotations

import struct
import uuid
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import pytest

from chaos.waiting import Deadline, wait_until
from chaos.wire import messages
from chaos.wire.postgres import Postgres
from chaos.wire.steps import Raw
from tests.chaos.wire.pg_client import (
    COPY_DONE,
    Client,
    S,
    bind,
    cancel,
    data,
    execute,
    extended,
    parse,
    query,
    rows,
    run,
    simple,
    tags,
)
from tests.chaos.wire.pg_effects import CASES, COMMIT, COUNT, EVIDENT, INSERT, MOMENTS, REFUSED, RESET, SCHEMA, WRITE
from tests.chaos.wire.pg_rig import effects, seen_by
from tests.chaos.wire.rig import Rig
from tests.chaos.wire.watcher import Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Session
    from chaos.wire.steps import Effect
    from tests.chaos.wire.pg_client import Exchange


@pytest.fixture(scope="module")
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane whose wire a client stands behind."""
    with onecharge.lane(schema=SCHEMA) as lane:
        lane.links.enlist("client", "client", 0)
        yield lane


@pytest.fixture
def rig(lane: Lane) -> Rig:
    """The wire, on a server in its first state."""
    lane.execute(RESET)
    rig = Rig(lane)
    rig.arm("")
    return rig


@pytest.fixture(autouse=True)
def _forget_prepared(lane: Lane) -> Iterator[None]:
    """Roll back what was prepared and left: it is a transaction, and a new logical slot waits for its end."""
    yield
    for (gid,) in lane.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"):
        lane.execute(f"ROLLBACK PREPARED '{gid}'")


@pytest.fixture
def client(rig: Rig) -> Iterator[Client]:
    """A client behind the wire."""
    with Client(rig.lane.links.postgres("client")) as client:
        yield client


@pytest.mark.parametrize("case", CASES)
def test_effects(rig: Rig, client: Client, case: str) -> None:
    """These are its effects, no more and no less, and this is what became of them."""
    exchanges, expected = CASES[case]
    for sent, kinds in exchanges:
        assert "!" not in tags(client.do(sent, kinds))
    assert effects(rig) == expected


@pytest.mark.parametrize("case", [case for case in CASES if "savepoint" not in case])  # their rows have ids of theirs
def test_evidence(lane: Lane, case: str) -> None:
    """Evidence names the transaction that wrote a row, and is only missing where the server was not asked."""
    exchanges, expected = CASES[case]
    lane.execute(RESET)
    effects = watched(lane, exchanges)
    written = {xid for (xid,) in lane.execute("SELECT xmin::text FROM t WHERE v NOT IN ('a', 'b')")}
    named = {item.removeprefix("xid:") for effect in effects for item in effect.evidence}
    assert written <= named or not all(effect.evidence for effect in effects)
    if case in EVIDENT:
        assert written == named
        assert len(written) == len(expected)


def test_evidence_of_savepoints(lane: Lane) -> None:
    """Evidence names the whole transaction, where the row has the id of a savepoint."""
    [effect] = watched(lane, simple("BEGIN", "SAVEPOINT a", f"{INSERT} RETURNING pg_current_xact_id()", "COMMIT"))
    [whole] = [piece for piece in effect.contents if b"RETURNING" not in piece and b"D\0\0\0" in piece]
    [item] = effect.evidence
    assert item.removeprefix("xid:").encode() in whole
    assert lane.execute("SELECT xmin::text FROM t ORDER BY id DESC LIMIT 1") != [(item.removeprefix("xid:"),)]


def watched(lane: Lane, exchanges: list[Exchange]) -> list[Effect]:
    """The effects of a client that does this, as the protocol says them."""
    address = urlsplit(lane.postgres)
    with (
        Watcher(0, address.port or 0, Postgres) as watcher,
        Client(address._replace(netloc=f"{address.username}@127.0.0.1:{watcher.port}").geturl()) as client,
    ):
        for sent, kinds in exchanges:
            client.do(sent, kinds)
    assert not watcher.torn
    assert not any(isinstance(step, Raw) for one in watcher.connections for step in one.steps)
    return [effect for _, effect in watcher.effects]


@pytest.mark.parametrize("fault", ["lose-request", "lose-reply"])
@pytest.mark.parametrize("case", MOMENTS)
def test_moment(lane: Lane, case: str, fault: str) -> None:
    """Before the effect nothing of it is there, and when its reply is lost all of it is; the client sees no success."""
    exchanges, point, before, after = MOMENTS[case]
    lane.execute(RESET)
    rig = Rig(lane)
    with Client(lane.links.postgres("client")) as client:
        rig.arm(f"client/postgres.{point}:{fault}")
        said: list[str] = []
        for sent, kinds in exchanges:
            said = tags(client.do(sent, kinds))
        rig.fired()
        assert said[-1] == "!"
        assert lane.execute(COUNT) == [(before if fault == "lose-request" else after,)]
    rig.disarm()


def test_refused_texts(lane: Lane) -> None:
    """What is refused is not there, the client sees the error and no end of a statement, and it can go on."""
    for text, point in ((INSERT, "write"), (f"{INSERT}; {INSERT}", "write"), (f"BEGIN; {INSERT}; COMMIT", "commit")):
        lane.execute(RESET)
        rig = Rig(lane)
        with Client(lane.links.postgres("client")) as client:
            rig.arm(f"client/postgres.{point}#1:refuse=40001")
            said = tags(client.do(query(text)))
            assert said[-2:] == ["40001", "I"]
            assert said.count("INSERT 0 1") == text.count("INSERT") - (point == "write")
            assert lane.execute(COUNT) == [(0,)]
            rig.disarm()
            assert tags(client.do(query(text)))[-1] == "I"
            assert lane.execute(COUNT)[0][0] > 0


def test_serialization_failure(rig: Rig, client: Client) -> None:
    """A commit that the server refuses was an effect that was refused."""
    with Client(rig.lane.postgres) as other:
        for one in (client, other):
            one.do(query("BEGIN ISOLATION LEVEL SERIALIZABLE"))
            one.do(query("SELECT count(*) FROM t"))
        for one in (client, other):
            one.do(query(INSERT))
        assert tags(other.do(query("COMMIT"))) == ["COMMIT", "I"]
        assert tags(client.do(query("COMMIT"))) == ["40001", "I"]
    assert effects(rig) == [REFUSED]


class Interruption(NamedTuple):
    """What interrupts a session, what the client is told, and what becomes of the effect."""

    how: str
    code: str
    outcome: str


@pytest.mark.parametrize(
    "by",
    [Interruption("pg_cancel_backend", "57014", "refused"), Interruption("pg_terminate_backend", "57P01", "unclear")],
    ids=["cancel", "terminate"],
)
@pytest.mark.parametrize(
    "exchanges",
    [
        simple("INSERT INTO slow VALUES (20)"),
        simple("INSERT INTO slow VALUES (20); SELECT 1"),
        simple("BEGIN", "INSERT INTO slow VALUES (20)", "COMMIT"),
        extended(run("INSERT INTO slow VALUES (20)")),
        extended(run("BEGIN"), run("INSERT INTO slow VALUES (20)"), run("COMMIT")),
    ],
    ids=["one", "two", "block", "extended", "pipeline"],
)
def test_interrupted(rig: Rig, client: Client, exchanges: list[Exchange], by: Interruption) -> None:
    """A commit that is cancelled was refused; whether one happened whose session was ended is unclear."""
    *earlier, (last, _) = exchanges
    for sent, kinds in earlier:
        client.do(sent, kinds)
    client.send(last)
    rig.wait("the effect", lambda: seen_by(rig))
    [pid] = struct.unpack("!I", client.pid)
    asleep = f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid} AND wait_event = 'PgSleep'"  # noqa: S608 - a number
    wait_until("the commit to sleep", lambda: rig.lane.execute(asleep), Deadline(10))
    rig.lane.execute(f"SELECT {by.how}({pid})")
    said = tags(client.until("Z"))
    assert by.code in said
    assert said[-1] == ("I" if by.outcome == "refused" else "!")
    assert [effect.split()[1] for effect in effects(rig)] == [by.outcome]
    assert rig.lane.execute("SELECT count(*) FROM slow") == [(0,)]


def test_cancel_request(rig: Rig, client: Client) -> None:
    """A CancelRequest through the wire ends the statement that runs."""
    client.send(query("INSERT INTO slow SELECT 1 FROM pg_sleep(20)"))
    asleep = "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    wait_until("the statement to sleep", lambda: rig.lane.execute(asleep), Deadline(10))
    assert cancel(rig.lane.links.postgres("client"), client.cancel_key) == b""
    assert tags(client.until("Z")) == ["57014", "I"]
    assert effects(rig) == []


def test_keys(rig: Rig, client: Client) -> None:
    """A key is found in texts, parameters of both formats, copied data wherever it is cut, and what the server made."""
    key = uuid.uuid4()
    rig.wire.do(lambda number: messages.Name(number, str(key), "key"))
    into = "INSERT INTO keys (id) VALUES"
    line = data(f"{uuid.uuid4()}\n" * 3 + f"{key}\n")
    client.do(parse(f"{into} ($1)", "old") + S)
    exchanges = [
        *simple(f"{into} ('{key}')", f"BEGIN; {into} ('{key}'); COMMIT", f"{into} ('{key}'); SELECT 1"),
        *extended(run(f"{into} ($1)", str(key).encode())),
        *extended(parse(f"{into} ($1)"), bind(key.bytes, formats=[1]), execute()),
        *extended(bind(key.bytes, name="old", formats=[1]), execute()),
        *simple("BEGIN", f"{into} ('{key}')", "SELECT 1"),
        *extended(run("COMMIT")),
        (query("COPY keys (id) FROM STDIN"), "G"),
        *((line[at : at + 3], "") for at in range(0, len(line), 3)),
        (COPY_DONE, "Z"),
        (query("COPY keys (id) FROM STDIN"), "G"),
        (data(f"{uuid.uuid4()}\n{str(key)[:9]}") + data(f"{str(key)[9:]}\n") + COPY_DONE, "Z"),
        *simple("SELECT lo_from_bytea(0, 'none')"),
    ]
    for sent, kinds in exchanges:
        client.do(sent, kinds)
    named = [["[key]" in point for point in seen.points].count(True) for seen in seen_by(rig)]
    assert effects(rig) == [WRITE, COMMIT, WRITE, WRITE, WRITE, WRITE, COMMIT, WRITE, WRITE, WRITE]
    assert named == [1, 1, 1, 1, 1, 1, 1, 1, 1, 0]


def test_keys_of_the_server(rig: Rig, client: Client) -> None:
    """A key that the server made is found in the commit of the transaction that read it."""
    client.do(query("BEGIN"))
    [[made]] = rows(client.do(query("INSERT INTO keys DEFAULT VALUES RETURNING id")))
    assert made is not None
    rig.wire.do(lambda number: messages.Name(number, made.decode(), "key"))
    client.do(query("COMMIT"))
    [seen] = seen_by(rig) or rig.wait("the effect", lambda: seen_by(rig))
    assert any("[key]" in point for point in seen.points)
