"""SQL as statements: where they begin and end as the server sees it, and never "read" for what may write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from chaos.wire.postgres_sql import Statement, statements

if TYPE_CHECKING:
    from chaos.wire.postgres_sql import Kind

KINDS: dict[Kind, str] = {
    "empty": r"""

        -- nothing
        /* nothing */
        /* one /* in */ another */ ;; -- and the end
        ;
    """,
    "begin": r"""
        BEGIN
        begin work
        BEGIN TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY
        START TRANSACTION
        start /* now */ transaction read write
        /* COMMIT */ BEGIN -- COMMIT
    """,
    "commit": r"""
        COMMIT
        commit work
        COMMIT TRANSACTION
        COMMIT AND CHAIN
        COMMIT AND NO CHAIN
        END
        END TRANSACTION
        /* app: BEGIN; */ COMMIT
        CoMmIt;
    """,
    "rollback": r"""
        ROLLBACK
        ROLLBACK WORK
        rollback transaction and chain
        ABORT
        ABORT WORK
        ROLLBACK AND NO CHAIN
    """,
    "savepoint": r"""
        SAVEPOINT a
        savepoint "A b"
        SAVEPOINT savepoint
        SAVEPOINT sp$1
    """,
    "rollback to": r"""
        ROLLBACK TO a
        ROLLBACK TO SAVEPOINT a
        ROLLBACK WORK TO SAVEPOINT "a;b"
        ROLLBACK TRANSACTION TO a
        ROLLBACK TO savepoint
        ROLLBACK TO SAVEPOINT savepoint
    """,
    "release": r"""
        RELEASE a
        RELEASE SAVEPOINT a
        RELEASE savepoint
        RELEASE SAVEPOINT savepoint
    """,
    "prepare transaction": r"""
        PREPARE TRANSACTION 'x'
        prepare /* y */ transaction E'it\'s'
        PREPARE TRANSACTION $$x$$
    """,
    "commit prepared": r"""
        COMMIT PREPARED 'x'
        commit prepared 'it''s'
    """,
    "rollback prepared": r"""
        ROLLBACK PREPARED 'x'
        ROLLBACK PREPARED $a$x$a$
    """,
    "copy in": r"""
        COPY t FROM STDIN
        COPY t (a, b) FROM STDIN WITH (FORMAT csv)
        copy public."from" from stdin
        COPY "t" ("to") FROM STDIN BINARY
        COPY t FROM STDOUT
        COPY t (a) FROM /* 'file' */ STDIN WHERE a > 1
    """,
    "copy out": r"""
        COPY t TO STDOUT
        COPY t (a, b) TO STDOUT (FORMAT binary)
        COPY (SELECT * FROM t) TO STDOUT WITH (FORMAT csv)
        COPY (SELECT a FROM t WHERE b IN (1, 2)) TO STDOUT CSV
        COPY (VALUES (1)) TO STDIN
    """,
    "at once": r"""
        VACUUM
        VACUUM (FULL, ANALYZE) t
        CREATE DATABASE d
        DROP DATABASE IF EXISTS d WITH (FORCE)
        ALTER DATABASE d SET TABLESPACE s
        CREATE TABLESPACE s LOCATION '/s'
        DROP TABLESPACE s
        CREATE SUBSCRIPTION s CONNECTION 'host=h' PUBLICATION p
        ALTER SUBSCRIPTION s REFRESH PUBLICATION
        DROP SUBSCRIPTION s
        ALTER SYSTEM SET work_mem = '1MB'
        REINDEX TABLE t
        REINDEX (VERBOSE) INDEX CONCURRENTLY i
        CLUSTER
        CREATE INDEX CONCURRENTLY i ON t (a)
        CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON t (lower(a))
        DROP INDEX CONCURRENTLY i
        ALTER TABLE t DETACH PARTITION p CONCURRENTLY
        CREATE_REPLICATION_SLOT s LOGICAL pgoutput
        DROP_REPLICATION_SLOT s
        ALTER_REPLICATION_SLOT s (FAILOVER true)
    """,
    "call": r"""
        CALL p()
        call s.p(1, 'x')
        DO $$ BEGIN INSERT INTO t VALUES (1); COMMIT; END $$
        DO LANGUAGE plpgsql 'BEGIN commit; END'
        DO $x$ BEGIN CALL p(); END $x$
    """,
    "harmless": r"""
        SET search_path TO a, b
        SET LOCAL work_mem = '1MB'
        SET CONSTRAINTS ALL DEFERRED
        RESET ALL
        SHOW server_version
        LISTEN c
        UNLISTEN *
        DISCARD ALL
        DEALLOCATE ALL
        PREPARE a AS INSERT INTO t VALUES ($1)
        PREPARE a (int) AS SELECT f($1)
        PREPARE transaction AS SELECT 1
        DECLARE c CURSOR FOR SELECT * FROM t
        DECLARE c BINARY INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR VALUES (1)
        FETCH ALL FROM c
        MOVE 3 IN c
        CLOSE c
        EXPLAIN SELECT f()
        EXPLAIN (VERBOSE, COSTS off) INSERT INTO t VALUES (1)
        LOCK TABLE t IN EXCLUSIVE MODE
        CHECKPOINT
        LOAD 'auto_explain'
        COPY t TO '/tmp/file'
        IDENTIFY_SYSTEM
        READ_REPLICATION_SLOT s
        TIMELINE_HISTORY 1
        BASE_BACKUP (LABEL 'x')
        START_REPLICATION SLOT s LOGICAL 0/0 ("proto_version" '1')
        CREATE_REPLICATION_SLOT s TEMPORARY LOGICAL pgoutput
    """,
    "read": r"""
        SELECT nextval('s')
        SELECT DISTINCT ON (a) b, nextval('s') FROM t
        VALUES (nextval('s'))
        SELECT
        SELECT 1
        select * from t where a = $1
        SELECT 'INSERT INTO t; nextval(''s'')'
        SELECT "a;b", "nextval" FROM "INSERT"
        SELECT 1 -- f()
        SELECT count(*), sum(a) FILTER (WHERE a > 1) FROM t GROUP BY (b) HAVING max(a) IN (1, 2)
        SELECT row_number() OVER (PARTITION BY a ORDER BY b) FROM t
        SELECT pg_catalog.current_setting('x')
        SELECT "pg_catalog"."lower"('X')
        SELECT * FROM t FOR UPDATE
        SELECT * FROM t FOR NO KEY UPDATE OF t SKIP LOCKED
        SELECT * FROM t FOR KEY SHARE
        SELECT a::numeric(10, 2), CAST(b AS varchar(3)) FROM t
        SELECT coalesce(a, (SELECT 1)) FROM t WHERE NOT (a AND (b OR (c)))
        SELECT EXISTS (SELECT 1 FROM t WHERE a = ANY ($1))
        SELECT * FROM unnest($1::int[]) AS u(a)
        SELECT DISTINCT ON (a) a FROM t LEFT JOIN s USING (a) LIMIT (1)
        SELECT pg_advisory_xact_lock(hashtext($1))
        SELECT pg_sleep(0.1)
        SELECT a FROM t TABLESAMPLE system (1)
        SELECT (a).b, c[1:2], d->>'x', e @> '{}' FROM t
        VALUES (1, 'a'), (2, 'b')
        TABLE t
        (SELECT 1) UNION ALL (SELECT 2)
        ((SELECT 1))
        WITH x AS (SELECT 1), y AS MATERIALIZED (SELECT 2) SELECT * FROM x, y
        WITH RECURSIVE x (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < 9) SELECT * FROM x
        SELECT U&'\0061', N'a', B'01', X'1F', E'a\'b; --'
        SELECT 1 WHERE 5 -/* minus */3 = 2
        SELECT $a$ nextval('s'); $b$ $a$
        SELECT now()
    """,
    "write": r"""
        INSERT INTO t VALUES (1)
        UPDATE t SET a = 1
        DELETE FROM t
        MERGE INTO t USING s ON a = b WHEN MATCHED THEN DELETE
        WITH x AS (INSERT INTO t VALUES (1) RETURNING a) SELECT * FROM x
        WITH x AS (SELECT 1) UPDATE t SET a = 1
        WITH x AS (DELETE FROM t RETURNING *) SELECT count(*) FROM x FOR UPDATE
        SELECT f()
        SELECT f /* now */ ()
        SELECT "f"()
        SELECT "Lower"('x')
        SELECT "in"(1)
        SELECT s.lower('x')
        SELECT d.pg_catalog.lower('x')
        SELECT s . values (1)
        SELECT pg_catalog.setval('s', 1)
        SELECT lo_create(0)
        SELECT dblink_exec('COMMIT')
        SELECT query_to_xml('INSERT', true, true, '')
        SELECT DISTINCT ON (a) f(a) FROM t
        SELECT * INTO u FROM t
        (SELECT * INTO u FROM t)
        SELECT count(*) FROM f(1)
        SELECT 1into u
        CREATE TABLE t (a int)
        CREATE TABLE t AS SELECT 1
        CREATE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT 1; COMMIT; $$
        CREATE FUNCTION f() RETURNS int LANGUAGE sql RETURN 1
        CREATE RULE r AS ON INSERT TO t DO ALSO (INSERT INTO u VALUES (1); DELETE FROM v)
        CREATE INDEX i ON t (concurrently)
        CREATE INDEX "concurrently" ON t (a)
        CREATE TEMPORARY TABLE database (a int)
        ALTER DATABASE d SET work_mem = 1
        ALTER DATABASE d RENAME TO e
        ALTER TABLE t DETACH PARTITION p
        ALTER TABLESPACE s RENAME TO u
        REFRESH MATERIALIZED VIEW CONCURRENTLY v
        DROP TABLE t
        TRUNCATE t
        ANALYZE t
        GRANT SELECT ON t TO u
        NOTIFY c
        NOTIFY c, 'x'
        EXECUTE a
        EXECUTE a (1)
        EXPLAIN ANALYZE SELECT 1
        EXPLAIN (BUFFERS, ANALYZE) SELECT 1
        EXPLAIN ("analyze") INSERT INTO t VALUES (1)
        EXPLAIN ANALYSE DELETE FROM t
        DO $$ BEGIN PERFORM 1; END $$
        COPY t FROM '/tmp/file'
        COPY t FROM PROGRAM 'cat'
        COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
        COPY (SELECT f()) TO STDOUT
        COPY (SELECT f()) TO '/tmp/file'
        DECLARE c CURSOR WITH HOLD FOR SELECT f()
        START
        SELEC 1
        COMMITS
        COMMIT_
        "COMMIT"
        'COMMIT'
        IMPORT FOREIGN SCHEMA s FROM SERVER r INTO l
        WAIT FOR LSN '0/0'
    """,
}
TABLE = [(text.strip(), kind) for kind, texts in KINDS.items() for text in texts.splitlines()[1:-1]]

DOUBTFUL = [
    "SELECT 'a",
    "SELECT 'a''",
    'SELECT "a',
    "SELECT E'a\\'",
    "SELECT $$a",
    "SELECT $a$ $b$",
    "SELECT $A$ $a$",
    "SELECT 1 /* ",
    "SELECT 1 /* /* */",
    "SELECT (1",
    "SELECT 1)",
    "SELECT )1(",
    "SELECT (1; COMMIT",
    "SELECT 1; )",
    "SELECT $",
    "SELECT \\; COMMIT",
    "SELECT 1\0; COMMIT",
    'SELECT U&"a"',
    "SELECT E'a'\n'b\\'; COMMIT",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
    "CREATE OR REPLACE PROCEDURE p() begin /* */ atomic INSERT INTO t VALUES (1); END; COMMIT",
    "SAVEPOINT",
    "SAVEPOINT 1",
    "SAVEPOINT a b",
    "RELEASE",
    "ROLLBACK TO",
    "ROLLBACK TO E'a'",
    "PREPARE TRANSACTION",
    "PREPARE TRANSACTION a",
    "PREPARE TRANSACTION U&'x'",
    "PREPARE TRANSACTION E'\\x41'",
    "COMMIT PREPARED 'a'\n'b'",
]

SPLIT = [
    ("BEGIN; INSERT INTO t VALUES (1); COMMIT", ["BEGIN", "INSERT INTO t VALUES (1)", "COMMIT"]),
    (";;SELECT 1;;SELECT 2;;", ["SELECT 1", "SELECT 2"]),
    ("SELECT 1; -- and; no more\n", ["SELECT 1"]),
    ("SELECT 1 -- ; SELECT 2\n; SELECT 3", ["SELECT 1", "SELECT 3"]),
    ("SELECT 1 --;\r; SELECT 3", ["SELECT 1", "SELECT 3"]),
    ("/* a; */ SELECT /* /* b; */ c; */ 1 /* d */ -- e\n;", ["/* a; */ SELECT /* /* b; */ c; */ 1 /* d */"]),
    ("-- a;\nSELECT 1;/* b */;", ["-- a;\nSELECT 1"]),
    ("SELECT 'a;b'; SELECT 'c'';'", ["SELECT 'a;b'", "SELECT 'c'';'"]),
    ("SELECT '\\'; SELECT 'b'", ["SELECT '\\'", "SELECT 'b'"]),
    ("SELECT E'\\'; SELECT '; SELECT 2", ["SELECT E'\\'; SELECT '", "SELECT 2"]),
    ("SELECT e'\\\\'; SELECT 2", ["SELECT e'\\\\'", "SELECT 2"]),
    ("SELECT E'''\\''; SELECT 2", ["SELECT E'''\\''", "SELECT 2"]),
    ("SELECT name'\\'; SELECT 2", ["SELECT name'\\'", "SELECT 2"]),
    ("SELECT E'a'\n'b\\';'; SELECT 2", ["SELECT E'a'\n'b\\';'", "SELECT 2"]),
    ("SELECT E'a' -- x\n -- y\n\t'\\';'; SELECT 2", ["SELECT E'a' -- x\n -- y\n\t'\\';'", "SELECT 2"]),
    ("SELECT E'a' 'b\\'; SELECT 2", ["SELECT E'a' 'b\\'", "SELECT 2"]),
    ('SELECT "a;b", "c"";"; SELECT 2', ['SELECT "a;b", "c"";"', "SELECT 2"]),
    ("SELECT $$a;b$$; SELECT 2", ["SELECT $$a;b$$", "SELECT 2"]),
    ("SELECT $a$;$$;$b$;$a$; SELECT 2", ["SELECT $a$;$$;$b$;$a$", "SELECT 2"]),
    ("SELECT $a$;$b$a$; SELECT 2", ["SELECT $a$;$b$a$", "SELECT 2"]),
    ("SELECT $é1$;$é1$; SELECT 2", ["SELECT $é1$;$é1$", "SELECT 2"]),
    ("SELECT $1; SELECT $2", ["SELECT $1", "SELECT $2"]),
    ("SELECT a$b$; SELECT c$b$", ["SELECT a$b$", "SELECT c$b$"]),
    ("SELECT $1$a$;$a$; SELECT 2", ["SELECT $1$a$;$a$", "SELECT 2"]),
    ("SELECT 5-- 3;\n; SELECT 2", ["SELECT 5", "SELECT 2"]),
    ("SELECT 5 */* ; */ 3; SELECT 2", ["SELECT 5 */* ; */ 3", "SELECT 2"]),
    ("SELECT 5 /*/ ; */ ; SELECT 2", ["SELECT 5 /*/ ; */", "SELECT 2"]),
    ("SELECT '/*'; SELECT '*/'", ["SELECT '/*'", "SELECT '*/'"]),
    ("SELECT '--'; SELECT 2", ["SELECT '--'", "SELECT 2"]),
    ("/* ' */ SELECT 1; /* \" */ SELECT 2", ["/* ' */ SELECT 1", '/* " */ SELECT 2']),
    ("CREATE RULE r AS ON INSERT TO t DO (X; Y); SELECT 2", ["CREATE RULE r AS ON INSERT TO t DO (X; Y)", "SELECT 2"]),
    ("DO $$ BEGIN; END $$; COMMIT", ["DO $$ BEGIN; END $$", "COMMIT"]),
    ("CREATE TABLE begin (atomic int); COMMIT", ["CREATE TABLE begin (atomic int)", "COMMIT"]),
    ("SELECT 'é;'; SELECT 日本", ["SELECT 'é;'", "SELECT 日本"]),
]


@pytest.mark.parametrize(("text", "kind"), TABLE)
def test_what_a_statement_is(text: str, kind: Kind) -> None:
    """Alone, and in any case of letters outside quotes, a statement is of its kind."""
    told = statements(text.encode())
    assert told is not None
    assert [statement.kind for statement in told] == [kind]


@pytest.mark.parametrize(("text", "kind"), [(text, kind) for text, kind in TABLE if kind != "empty"])
def test_what_a_statement_is_among_others(text: str, kind: Kind) -> None:
    """Between others and with comments before and behind, it is of the same kind."""
    told = statements(f"/* ; */ BEGIN; -- ;\n /* COMMIT */ {text} -- ;\n; ROLLBACK /* ; */;".encode())
    assert told is not None
    assert [statement.kind for statement in told] == ["begin", kind, "rollback"]


@pytest.mark.parametrize("text", DOUBTFUL)
def test_there_is_no_answer_where_there_is_doubt(text: str) -> None:
    """What does not end, a body of statements, and a name that cannot be told are not guessed at."""
    assert statements(text.encode()) is None


@pytest.mark.parametrize(("text", "parts"), SPLIT)
def test_where_statements_end(text: str, parts: list[str]) -> None:
    """Statements end at the semicolons that the server's own scanner takes for their ends."""
    told = statements(text.encode())
    assert told is not None
    assert [statement.text.decode() for statement in told] == parts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("SAVEPOINT Ab", "ab"),
        ('SAVEPOINT "Ab "" c"', 'Ab " c'),
        ("ROLLBACK TO SAVEPOINT X", "x"),
        ("RELEASE /* y */ x", "x"),
        ("SAVEPOINT " + "a" * 70, "a" * 63),
        ("PREPARE TRANSACTION 'It''s'", "It's"),
        ("COMMIT PREPARED E'a\\\\b\\'c'''", "a\\b'c'"),
        ("ROLLBACK PREPARED $q$a;b$q$", "a;b"),
        ("COMMIT", ""),
    ],
)
def test_names(text: str, name: str) -> None:
    """Savepoints have the names that the server gives them, prepared transactions theirs without quotes."""
    told = statements(text.encode())
    assert told is not None
    assert [statement.name.decode() for statement in told] == [name]


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("COMMIT AND CHAIN", True),
        ("COMMIT WORK AND CHAIN", True),
        ("rollback transaction and /* no */ chain", True),
        ("COMMIT AND NO CHAIN", False),
        ("ROLLBACK", False),
    ],
)
def test_chains(text: str, *, chain: bool) -> None:
    """A transaction is followed by another only AND CHAIN."""
    told = statements(text.encode())
    assert told is not None
    assert [statement.chain for statement in told] == [chain]


@pytest.mark.parametrize(
    ("text", "notifies"),
    [
        ("NOTIFY c", True),
        ("SELECT pg_notify('c', 'x')", True),
        ("SELECT PG_CATALOG.PG_NOTIFY('c', 'x') FROM t", True),
        ("SELECT \"pg_notify\"('c', 'x')", True),
        ("INSERT INTO t SELECT pg_notify('c', 'x')", True),
        ("DO $$ BEGIN PERFORM pg_notify('c', 'x'); END $$", True),
        ("DO $$ BEGIN NOTIFY c; COMMIT; END $$", True),
        ("CALL p(pg_notify('c', 'x'))", True),
        ("COPY (SELECT pg_notify('c', 'x')) TO STDOUT", True),
        ("EXPLAIN ANALYZE SELECT pg_notify('c', 'x')", True),
        ("EXPLAIN SELECT pg_notify('c', 'x')", False),
        ("PREPARE p AS SELECT pg_notify('c', 'x')", False),
        ("CREATE RULE r AS ON INSERT TO t DO SELECT pg_notify('c', 'x')", False),
        ("SELECT 'pg_notify(' -- pg_notify()", False),
        ("INSERT INTO t VALUES (1)", False),
    ],
)
def test_notifications(text: str, *, notifies: bool) -> None:
    """What sends a notification at the commit says so, what only speaks of one does not."""
    told = statements(text.encode())
    assert told is not None
    assert [statement.notifies for statement in told] == [notifies]


PIECES = st.sampled_from(
    [
        *(text.encode() for text, _ in TABLE),
        *(text.encode() for text in DOUBTFUL),
        *"; ' \" $$ $a$ -- /* */ ( ) \n \\ E' U&\" . $1 é a e BEGIN ATOMIC COMMIT f".encode().split(b" "),
    ]
)


@given(st.binary() | st.lists(PIECES).map(b"".join) | st.lists(PIECES).map(b" ".join))
@example(b"SELECT" + b"(" * 100_000)
@example(b"/*" * 100_000)
@example(b"E'a'\n" * 50_000)
@example(b"SELECT " + b"''" * 500_000)
def test_any_bytes(text: bytes) -> None:
    """Nothing makes it fail; and the statements' texts are in the text, one after another."""
    at = 0
    for statement in statements(text) or ():
        found = text.find(statement.text, at)
        assert found >= at
        at = found + len(statement.text)


@given(st.lists(PIECES).map(b" ".join))
def test_a_statement_is_itself_alone(text: bytes) -> None:
    """The text of each statement is one statement, and it is the same."""
    for statement in statements(text) or ():
        assert statements(statement.text) == (statement,)


def test_long_texts_are_no_different() -> None:
    """A text too long to be remembered is read like any other."""
    text = b"INSERT INTO t VALUES " + b", ".join(b"('%d;')" % number for number in range(2000))
    assert statements(text + b"; COMMIT") == (Statement(text, "write"), Statement(b"COMMIT", "commit"))
