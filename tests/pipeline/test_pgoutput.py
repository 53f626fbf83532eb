"""The decoder of pgoutput: every message that Postgres can send is read, and nothing else is."""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publish.pgoutput import (
    Begin,
    Change,
    Column,
    Commit,
    Decoder,
    Insert,
    Message,
    Relation,
    Skipped,
    Undecodable,
)

if TYPE_CHECKING:
    import psycopg

LSN = st.integers(0, 2**64 - 1)
CLOCK = st.integers(-(2**63), 2**63 - 1)
OID = st.integers(0, 2**32 - 1)
NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
COLUMN = st.builds(Column, NAME, OID, st.integers(-1, 2**31 - 1), st.booleans())
RELATION = st.builds(Relation, OID, NAME, NAME, st.sampled_from("dnfi"), st.lists(COLUMN, max_size=8).map(tuple))


def rows(relation: Relation) -> st.SearchStrategy[Insert]:
    """Rows of a table."""
    count = len(relation.columns)
    values = st.lists(st.none() | st.binary(max_size=300), min_size=count, max_size=count)
    return st.builds(Insert, st.just(relation), values.map(tuple))


ROW = RELATION.flatmap(rows)
CHANGE: st.SearchStrategy[Change] = st.one_of(
    st.builds(Begin, LSN, CLOCK, OID),
    st.builds(Commit, LSN, LSN, CLOCK),
    st.builds(Message, st.booleans(), LSN, NAME, st.binary(max_size=300)),
    st.builds(Skipped, st.sampled_from("OYUDT")),
    RELATION,
    ROW,
)


def text(value: str) -> bytes:
    """As in the protocol: it ends with a zero byte."""
    return value.encode() + b"\0"


def encoded(change: Change) -> bytes:
    """What Postgres sends, by the words of its documentation."""
    match change:
        case Begin(lsn, at, xid):
            return pack("!cQqI", b"B", lsn, at, xid)
        case Commit(lsn, end, at):
            return pack("!cBQQq", b"C", 0, lsn, end, at)
        case Relation(id_, namespace, name, identity, columns):
            head = pack("!cI", b"R", id_) + text(namespace) + text(name) + identity.encode() + pack("!H", len(columns))
            return head + b"".join(pack("!B", one.key) + text(one.name) + pack("!Ii", *one[1:3]) for one in columns)
        case Insert(relation, values):
            fields = (b"n" if one is None else pack("!ci", b"t", len(one)) + one for one in values)
            return pack("!cIcH", b"I", relation.id, b"N", len(values)) + b"".join(fields)
        case Message(transactional, lsn, prefix, content):
            return pack("!cBQ", b"M", transactional, lsn) + text(prefix) + pack("!I", len(content)) + content
        case Skipped(kind):
            return kind.encode() + b"whatever"


def decoder(change: Change) -> Decoder:
    """One that knows what is to be known before this message."""
    new = Decoder()
    if isinstance(change, Insert):
        new.decode(encoded(change.relation))
    return new


@given(CHANGE)
def test_every_message(change: Change) -> None:
    """What the documentation's layout makes of a message is read as that message."""
    assert decoder(change).decode(encoded(change)) == change


@given(CHANGE.filter(lambda change: not isinstance(change, Skipped)), st.data())
def test_nothing_shorter_nor_longer(change: Change, data: st.DataObject) -> None:
    """A message that ends early, or goes on, is refused: no part of it is taken for the whole."""
    whole = encoded(change)
    shorter = data.draw(st.integers(0, len(whole) - 1))
    more = data.draw(st.binary(min_size=1, max_size=5))
    for wrong in (whole[:shorter], whole + more):
        with pytest.raises(Undecodable) as caught:
            decoder(change).decode(wrong)
        assert caught.value.data == wrong


@given(st.binary(max_size=60), CHANGE, st.data())
def test_any_bytes(noise: bytes, change: Change, data: st.DataObject) -> None:
    """Whatever comes, it is a message or it is `Undecodable`, and no other error."""
    broken = bytearray(encoded(change))
    broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    for one in (noise, bytes(broken)):
        try:
            decoder(change).decode(one)
        except Undecodable as error:
            assert error.why in str(error)  # noqa: PT017 - it need not be raised


TABLE = Relation(7, "public", "outbox", "d", (Column("id", 20, -1, key=True), Column("payload", 3802, -1, key=False)))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "of the kind b'', which there is not"),
        (b"S\0\0\0\1\1", "of the kind b'S', which there is not"),  # version 2: a transaction that is not over
        (pack("!cIcH", b"I", 8, b"N", 0), "a row of the relation 8, which was not described before"),
        (pack("!cIcH", b"I", 7, b"N", 1) + b"n", "expected a new row of 2 columns of outbox"),
        (pack("!cIcH", b"I", 7, b"O", 2) + b"nn", "expected a new row of 2 columns of outbox"),
        (pack("!cIcH", b"I", 7, b"N", 2) + b"nu", "a column of the kind 'u': expected text, or null"),
        (pack("!cIcH", b"I", 7, b"N", 2) + b"nb\0\0\0\0", "a column of the kind 'b': expected text, or null"),
        (pack("!cIcH", b"I", 7, b"N", 2) + b"nt\xff\xff\xff\xff", "it ends early, in a column"),  # of -1 bytes
        (pack("!cBQQq", b"C", 1, 2, 3, 4), "a commit with the flags 1, of which there are none"),
        (pack("!cI", b"R", 7) + b"\xff\0", "a name is no UTF-8 (invalid start byte)"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, why: str) -> None:
    """The error says what was expected, shows the bytes, and what to do."""
    new = Decoder()
    new.decode(encoded(TABLE))
    with pytest.raises(Undecodable, match="start again with proto_version '1'") as caught:
        new.decode(data)
    assert (caught.value.why, caught.value.data) == (why, data)


def test_an_altered_table(db: psycopg.Connection) -> None:
    """Of a real slot every message is read; each row has the text that Postgres gives for it, also once it is altered.

    Rows that are updated or deleted are not in a publication of inserts; what is rolled back is not in the slot.
    """
    changes = from_a_slot(db)
    expected = db.execute("""
        select n::text, repeat('ä€', n * 1000), '2026-01-01 00:00:00+00', '{"a": [1, null]}', '\\x00ff'
        from generate_series(1, 201, 100) n
    """)
    inserts = [one.values for one in changes if isinstance(one, Insert)]
    assert [tuple(value and value.decode() for value in values) for values in inserts[:3]] == expected.fetchall()
    assert inserts[3:] == [(b"2", None, None, None, None), (b"4", None, None, None, b"7")]
    assert [one.columns[-1].name for one in changes if isinstance(one, Relation)] == ["raw", "more"]
    messages = [one[0:1] + one[2:] for one in changes if isinstance(one, Message)]
    assert messages == [(True, "heartbeat", b"now")]
    begins = [one for one in changes if isinstance(one, Begin)]
    commits = [one for one in changes if isinstance(one, Commit)]
    assert [one.lsn for one in begins] == [one.lsn for one in commits]
    assert len(commits) == 4, "of the update, and of what was rolled back, there is nothing"
    assert all(one.lsn < one.end_lsn for one in commits)


def from_a_slot(db: psycopg.Connection) -> list[Change]:
    """All that a slot says of some transactions."""
    db.execute("""
        set time zone 'UTC';
        create table thing (id int primary key, said text, at timestamptz, what jsonb, raw bytea);
        create publication things for table thing with (publish = 'insert')
    """)
    db.execute("select pg_create_logical_replication_slot('things', 'pgoutput')")
    try:
        db.execute("""
            insert into thing select n, repeat('ä€', n * 1000), '2026-01-01T00:00:00Z', '{"a": [1, null]}', '\\x00ff'
            from generate_series(1, 201, 100) n
        """)
        db.execute("update thing set said = null where id = 1")
        db.execute("insert into thing (id) values (2)")
        with db.transaction(force_rollback=True):
            db.execute("insert into thing (id) values (3)")
        db.execute("alter table thing drop column raw, add column more int default 7")
        db.execute("insert into thing (id) values (4)")
        db.execute("select pg_logical_emit_message(true, 'heartbeat', 'now')")
        peek = """
            select data from pg_logical_slot_peek_binary_changes(
                'things', null, null, 'proto_version', '1', 'publication_names', 'things', 'messages', 'true')
        """
        new = Decoder()
        return [new.decode(data) for (data,) in db.execute(peek).fetchall()]
    finally:
        db.execute("select pg_drop_replication_slot('things')")
        db.execute("drop publication things; drop table thing")
