"""What a client of Postgres sees through the wire, message by message, is what it sees without it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import pq

from chaos.wire import messages
from tests.chaos.wire.pg_client import Client, fields, query, simple
from tests.chaos.wire.pg_conversations import COPIES, SEQUENCES, TEXTS
from tests.chaos.wire.rig import Rig

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from chaos import Lane, Session
    from tests.chaos.wire.pg_client import Exchange, Message

SCHEMA = """
CREATE TABLE t (id serial PRIMARY KEY, v text);
CREATE TABLE d (id int CONSTRAINT once UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE small (n int CHECK (n < 10));
CREATE TABLE watched (n int);
CREATE SEQUENCE s;
CREATE VIEW adding AS SELECT 1 AS n;
CREATE FUNCTION adds(v text) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN RAISE NOTICE 'adding %', v; INSERT INTO t (v) VALUES (v); RETURN 7; END $$;
CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO t (v) VALUES ('one'); COMMIT; INSERT INTO t (v) VALUES ('two'); END $$;
CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE NOTICE 'committing %', NEW.n; RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON watched DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION shout();
CREATE PUBLICATION everything FOR ALL TABLES;
"""
RESET = """
TRUNCATE t, d, small, watched RESTART IDENTITY; ALTER SEQUENCE s RESTART;
DROP TABLE IF EXISTS made; DROP INDEX IF EXISTS made_later; INSERT INTO t (v) VALUES ('a'), ('b'), ('c');
"""
STATE = "SELECT id::text, v FROM t UNION ALL SELECT id::text, 'd' FROM d UNION ALL SELECT n::text, 'small' FROM small"


@pytest.fixture(scope="module")
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane whose wire a client stands behind."""
    with onecharge.lane(schema=SCHEMA) as lane:
        lane.links.enlist("client", "client", 0)
        yield lane


def same(lane: Lane, exchanges: Sequence[Exchange]) -> None:
    """Every message of the server, and what it has in the end, is the same through the wire."""
    rig = Rig(lane)
    rig.arm("")
    direct, wired = (seen(lane, url, exchanges) for url in (lane.postgres, lane.links.postgres("client")))
    for at, (one, other) in enumerate(zip(direct, wired, strict=True)):
        assert other == one, f"at step {at}"
    rig.disarm()
    assert rig.all(messages.Noted) == []


def seen(lane: Lane, url: str, exchanges: Sequence[Exchange]) -> list[object]:
    """What the server says to each exchange, and what it has in the end."""
    lane.execute(RESET)
    with Client(url) as client:
        found: list[object] = [plain(client.do(*exchange), client.pid) for exchange in exchanges]
        found.append(plain(client.do(query("SELECT 'still there'")), client.pid))
    found.append(sorted(lane.execute(STATE)))
    return found


def plain(found: Sequence[Message], pid: bytes) -> list[object]:
    """Messages without what is different each time."""
    made: list[object] = []
    for kind, body in found:
        if kind in "EN":
            made.append((kind, {key: value for key, value in fields(body).items() if key not in "FLR"}))
        elif kind == "A":
            made.append((kind, body[:4] == pid, body[4:]))
        else:
            made.append((kind, body))
    return made


@pytest.mark.parametrize("text", TEXTS, ids=[f"{at}: {text[:60]}" for at, text in enumerate(TEXTS)])
def test_text(lane: Lane, text: str) -> None:
    """A simple Query's replies are the same."""
    same(lane, simple(text))


@pytest.mark.parametrize(("text", "sent"), COPIES, ids=range(len(COPIES)))
def test_copy_in(lane: Lane, text: str, sent: list[bytes]) -> None:
    """A COPY's replies are the same, whether its data is waited for or not."""
    same(lane, [(query(text), "G"), (b"".join(sent), "Z")])
    same(lane, [(query(text), "G"), *((one, "") for one in sent), (b"", "Z")])


@pytest.mark.parametrize("of", SEQUENCES)
def test_sequence(lane: Lane, of: str) -> None:
    """A conversation's replies are the same."""
    same(lane, SEQUENCES[of])


@pytest.mark.parametrize("of", SEQUENCES)
def test_sequence_in_pieces(lane: Lane, of: str) -> None:
    """They are the same if it comes in small pieces."""
    pieces: list[Exchange] = []
    for sent, kinds in SEQUENCES[of]:
        pieces += [(sent[at : at + 7], "") for at in range(0, len(sent), 7)] + [(b"", kinds)]
    same(lane, pieces)


def test_a_million_rows(lane: Lane) -> None:
    """Many rows pass unchanged."""
    same(lane, simple("SELECT n, repeat('x', n % 50) FROM generate_series(1, 1000000) n"))


def test_versions_of_the_protocol(lane: Lane) -> None:
    """A newer protocol is negotiated, and its longer keys cancel, as without the wire."""
    for url in (lane.postgres, lane.links.postgres("client")):
        for version, size in ((3 << 16, 4), ((3 << 16) + 2, 32), ((3 << 16) + 9999, 32)):
            with Client(url, version, **({"_pq_.none": "1"} if version > (3 << 16) + 2 else {})) as client:
                assert len(client.cancel_key) == 4 + size
                assert [kind for kind, _ in client.greeting if kind == "v"] == ["v"] * (version > (3 << 16) + 2)


def test_pipeline_mode(lane: Lane) -> None:
    """The flush requests of libpq are answered before the Sync."""
    with psycopg.connect(lane.links.postgres("client"), autocommit=True) as connection:
        one = connection.pgconn
        one.enter_pipeline_mode()
        for value in (b"x", b"y"):
            one.send_query_params(b"INSERT INTO t (v) VALUES ($1) RETURNING v", [value])
            one.send_flush_request()
            one.flush()
            result = one.get_result()
            assert result is not None
            assert result.get_value(0, 0) == value
            assert one.get_result() is None
        one.pipeline_sync()
        result = one.get_result()
        assert result is not None
        assert result.status == pq.ExecStatus.PIPELINE_SYNC
        one.exit_pipeline_mode()
