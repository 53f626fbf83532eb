"""What clients may say to a Postgres server, for comparing what it says with and without the wire."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from chaos.wire.postgres_messages import message
from tests.chaos.wire.pg_client import (
    COPY_DONE,
    H,
    S,
    bind,
    close,
    data,
    describe,
    execute,
    extended,
    parse,
    query,
    run,
    simple,
)

if TYPE_CHECKING:
    from tests.chaos.wire.pg_client import Exchange

TEXTS = [
    "",
    ";",
    ";;;",
    "   ",
    "-- nothing",
    "/* nothing /* at all */ */",
    "/* nothing */; -- but ;",
    "SELECT 1",
    "SELECT 1;",
    "SELECT 1 AS one, 'two' AS two, NULL, 3.5::float8, '2020-01-02'::date, ARRAY[1, 2], '\\x00ff'::bytea",
    "SELECT id, v FROM t ORDER BY id",
    "SELECT FROM t",
    "SELECT 1; SELECT 2; SELECT 3",
    "SELECT 1; SELECT 1/0; SELECT 2",
    "SELECT 1;; SELECT 2; /* the end */",
    "SELECT no_column FROM t",
    "SELEC 1",
    "SELECT 1; SELEC 2",
    "INSERT INTO t (v) VALUES ('x'); SELEC 2",
    "SELECT 'half",
    "/* half",
    "SELECT $$half",
    "SELECT $1",
    "INSERT INTO t (v) VALUES ($1)",
    "INSERT INTO t (v) VALUES ('$1')",
    "INSERT INTO t (v) VALUES ('x')",
    "INSERT INTO t (v) VALUES ('x');",
    "  /* in front */ INSERT INTO t (v) VALUES ('x') -- behind",
    "INSERT INTO t (v) VALUES ('x') RETURNING id, v, now() - now()",
    "INSERT INTO t (v) SELECT current_query();",
    "INSERT INTO t (id) VALUES (1)",
    "INSERT INTO t (id, v) VALUES (1, 'x') ON CONFLICT DO NOTHING",
    "INSERT INTO   no_table VALUES (1)",
    "INSERT INTO t (v) VALUES ('x'); INSERT INTO   no_table VALUES (1)",
    "UPDATE t SET v = 'x' WHERE false",
    "UPDATE t SET v = 'x'",
    "DELETE FROM t",
    "WITH new AS (INSERT INTO t (v) VALUES ('x') RETURNING id) SELECT * FROM new",
    "MERGE INTO t USING (VALUES (1), (9)) w ON t.id = column1 WHEN MATCHED THEN DELETE",
    "TRUNCATE t",
    "SELECT adds('x')",
    "SELECT adds('x'), adds('y') FROM t",
    "DO $$ BEGIN INSERT INTO t (v) VALUES ('x'); RAISE NOTICE 'done'; END $$",
    "DO $$ BEGIN RAISE WARNING 'no' USING HINT = 'stop'; RAISE EXCEPTION 'wrong' USING ERRCODE = 'ZZ001'; END $$",
    "CALL twice()",
    "BEGIN; CALL twice(); COMMIT",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT;  -- the end",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); SELECT count(*) FROM t; COMMIT; SELECT count(*) FROM t",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); ROLLBACK; INSERT INTO t (v) VALUES ('y')",
    "BEGIN; INSERT INTO t (v) VALUES ('x')",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); SELECT 1/0; COMMIT",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); SELECT no_column; COMMIT",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT AND CHAIN; INSERT INTO t (v) VALUES ('y'); COMMIT",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT; BEGIN; INSERT INTO t (v) VALUES ('y'); COMMIT",
    "BEGIN; INSERT INTO d VALUES (1), (1); COMMIT; INSERT INTO t (v) VALUES ('x')",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT; INSERT INTO d VALUES (1), (1)",
    "BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT; INSERT INTO t (id) VALUES (1); SELECT 1",
    "BEGIN; BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT; COMMIT",
    "BEGIN; SAVEPOINT a; INSERT INTO t (v) VALUES ('x'); ROLLBACK TO a; RELEASE a; COMMIT",
    "INSERT INTO t (v) VALUES ('x'); COMMIT; INSERT INTO t (v) VALUES ('y')",
    "INSERT INTO t (v) VALUES ('x'); ROLLBACK; INSERT INTO t (v) VALUES ('y')",
    "INSERT INTO t (v) VALUES ('x'); BEGIN; INSERT INTO t (v) VALUES ('y')",
    "INSERT INTO t (v) VALUES ('x'); BEGIN; INSERT INTO t (v) VALUES ('y'); COMMIT; SELECT 1",
    "INSERT INTO t (v) VALUES ('x'); SAVEPOINT a; INSERT INTO t (v) VALUES ('y')",
    "SAVEPOINT a; INSERT INTO t (v) VALUES ('y')",
    "INSERT INTO t (v) VALUES ('x'); INSERT INTO t (v) VALUES ('y') RETURNING id; SELECT count(*) FROM t",
    "INSERT INTO t (v) VALUES ('x'); SELECT 1/0; INSERT INTO t (v) VALUES ('y')",
    "INSERT INTO d VALUES (1), (1)",
    "INSERT INTO t (v) VALUES ('x'); INSERT INTO d VALUES (1), (1)",
    "INSERT INTO d VALUES (1), (1); SELECT 1",
    "INSERT INTO d VALUES (1) RETURNING id; INSERT INTO d VALUES (1) RETURNING id",
    "INSERT INTO d VALUES (1), (1) RETURNING id, repeat('x', 100000)",
    "INSERT INTO watched VALUES (1), (2)",
    "INSERT INTO watched VALUES (1); INSERT INTO watched VALUES (2)",
    "SET LOCAL statement_timeout = '20s'; INSERT INTO t (v) VALUES ('x')",
    "SET LOCAL statement_timeout = '20s'",
    "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE; INSERT INTO t (v) SELECT current_setting('transaction_isolation')",
    "LOCK TABLE t; INSERT INTO t (v) VALUES ('x')",
    "LOCK TABLE t",
    "DECLARE c CURSOR FOR SELECT id FROM t; FETCH 2 FROM c; INSERT INTO t (v) VALUES ('x'); CLOSE c",
    "DECLARE c BINARY CURSOR FOR SELECT id FROM t; FETCH 2 FROM c; INSERT INTO t (v) VALUES ('x'); FETCH c",
    "DECLARE c CURSOR FOR SELECT adds('x')",
    "DECLARE c CURSOR WITH HOLD FOR SELECT adds('x')",
    "BEGIN; DECLARE c SCROLL CURSOR FOR SELECT * FROM t; FETCH LAST FROM c; MOVE BACKWARD 1 IN c; FETCH c; COMMIT",
    "SET application_name = 'other'; SHOW application_name",
    "SET no_such = 1",
    "SET foo.bar = 1; SHOW foo.bar; RESET foo.bar",
    "SHOW standard_conforming_strings",
    "SET TIME ZONE 'Asia/Tokyo'; INSERT INTO t (v) VALUES ('x')",
    "EXPLAIN (COSTS OFF) SELECT * FROM t",
    "EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, BUFFERS OFF) INSERT INTO t (v) VALUES ('x')",
    "LISTEN here; NOTIFY here, 'there'; UNLISTEN here",
    "LISTEN here; SELECT pg_notify('here', 'there')",
    "BEGIN; LISTEN here; NOTIFY here, 'you'; COMMIT; SELECT 1",
    "PREPARE p AS INSERT INTO t (v) VALUES ($1); EXECUTE p('x'); EXECUTE p('y'); DEALLOCATE p",
    "PREPARE p AS SELECT $1::int; EXECUTE p(3)",
    "CREATE TABLE made (n int)",
    "CREATE TABLE made AS SELECT 1 AS n",
    "SELECT 1 AS n INTO made",
    "CREATE TABLE IF NOT EXISTS t (n int)",
    "DROP TABLE IF EXISTS nothing; SELECT 1",
    "CREATE TEMP TABLE made (n int) ON COMMIT DROP; INSERT INTO made VALUES (1); SELECT n + 0 FROM made",
    "CREATE INDEX CONCURRENTLY made_later ON t (v)",
    "SELECT 1; CREATE INDEX CONCURRENTLY made_later ON t (v)",
    "BEGIN; CREATE INDEX CONCURRENTLY made_later ON t (v); COMMIT",
    "VACUUM t",
    "VACUUM t; VACUUM t",
    "SELECT 1; VACUUM t",
    "ANALYZE t",
    "DISCARD ALL",
    "INSERT INTO t (v) VALUES ('x'); DISCARD ALL",
    "COMMIT",
    "ROLLBACK",
    "END; SELECT 1",
    "ROLLBACK AND CHAIN",
    "PREPARE TRANSACTION 'none'",
    "COMMIT PREPARED 'none'",
    "SELECT nextval('s'), nextval('s')",
    "SELECT pg_advisory_xact_lock(1)",
    "SELECT * FROM t FOR UPDATE",
    "SELECT pg_cancel_backend(pg_backend_pid())",
    "INSERT INTO t (v) SELECT pg_cancel_backend(pg_backend_pid())::text FROM generate_series(1, 1000000)",
    "SET statement_timeout = 20; INSERT INTO t (v) SELECT pg_sleep(1)::text",
    "SET default_transaction_read_only = on; INSERT INTO t (v) VALUES ('x')",
    "BEGIN READ ONLY; INSERT INTO t (v) VALUES ('x'); COMMIT",
    "SET client_min_messages = debug1; CREATE TABLE made (n int PRIMARY KEY)",
    "COPY t TO STDOUT",
    "COPY (SELECT 1, 'a' UNION ALL SELECT 2, NULL) TO STDOUT (FORMAT csv, HEADER)",
    "COPY (SELECT adds('x')) TO STDOUT",
    "COPY t TO STDOUT; SELECT 1",
    "COPY no_table TO STDOUT",
    "COPY (SELECT 1 / (2 - n) FROM generate_series(1, 3) n) TO STDOUT",
    "COPY (INSERT INTO t (v) VALUES ('x') RETURNING *) TO STDOUT",
    "SELECT generate_series(1, 300) AS n, repeat('x', 1000)",
    "INSERT INTO t (v) SELECT repeat('x', 1000) FROM generate_series(1, 300) RETURNING *",
    "SELECT length('" + "x" * 3_000_000 + "')",
    "INSERT INTO t (v) VALUES ('" + "ü" * 1_000_000 + "')",
    "INSERT INTO t (v) VALUES (1);" * 200,
]
COPIES = [
    ("COPY t (v) FROM STDIN", [data("x\n"), data("y\nz\n"), COPY_DONE]),
    ("COPY t (v) FROM STDIN", [COPY_DONE]),
    ("COPY t (v) FROM STDIN", [data("x\n"), message(b"f", b"enough\0")]),
    ("COPY small FROM STDIN", [data("1\n"), data("11\n"), data("2\n"), COPY_DONE]),
    ("COPY small FROM STDIN", [data("one\n"), COPY_DONE]),
    ("COPY d FROM STDIN", [data("1\n1\n"), COPY_DONE]),
    ("COPY t (v) FROM STDIN; SELECT 1", [data("x\n"), COPY_DONE]),
    ("SELECT 1; COPY t (v) FROM STDIN", [data("x\n"), COPY_DONE]),
    ("BEGIN; COPY t (v) FROM STDIN; COMMIT", [data("x\n"), COPY_DONE]),
]


INSERT = "INSERT INTO t (v) VALUES ($1) RETURNING id"
INT8, UUID, FLOAT8 = 20, 2950, 701  # types
ABS = 1397  # a function
SEQUENCES: dict[str, list[Exchange]] = {
    "a select": extended(run("SELECT 1")),
    "an insert": extended(run(INSERT, b"x")),
    "no execute": extended(parse("SELECT 1"), bind(), describe()),
    "only a sync": extended(),
    "an empty text": extended(run("")),
    "two statements in one": extended(run("SELECT 1; SELECT 2")),
    "parameters of every format": extended(
        parse("SELECT $1::int8, $2::text, $3::uuid, $4::float8, $5::bytea, $6::text", "p", (INT8, 0, UUID, FLOAT8)),
        describe("p", "S"),
        bind(
            struct.pack("!q", 7),
            b"x",
            bytes(range(16)),
            b"1.5",
            b"\\x00ff",
            None,
            name="p",
            formats=(1, 0, 1, 0, 0, 0),
            results=(1, 0, 1, 0, 1, 0),
        ),
        describe(),
        execute(),
    ),
    "a statement and its reuse": [
        (parse(INSERT, "p") + describe("p", "S") + S, "Z"),
        (bind(b"x", name="p") + execute() + S, "Z"),
        (bind(b"y", name="p", portal="q") + describe("q") + execute("q") + S, "Z"),
        (close("p") + S, "Z"),
        (bind(b"z", name="p") + execute() + S, "Z"),
    ],
    "the unnamed statement again": [
        (parse(INSERT) + S, "Z"),
        (bind(b"x") + execute() + S, "Z"),
        (bind(b"y") + execute() + S, "Z"),
        (query("SELECT 1"), "Z"),
        (bind(b"z") + execute() + S, "Z"),
    ],
    "the unnamed statement after a simple insert": [
        (parse("SELECT 5") + S, "Z"),
        (query("INSERT INTO t (v) VALUES ('x')"), "Z"),
        (bind() + execute() + S, "Z"),
    ],
    "a name twice": [*extended(parse("SELECT 1", "p")), *extended(parse("SELECT 2", "p"), bind(name="p"), execute())],
    "rows by and by": extended(
        parse("SELECT * FROM generate_series(1, 5)"),
        bind(),
        describe(),
        execute(rows=2),
        execute(rows=2),
        execute(),
        execute(),
    ),
    "rows of an insert by and by": extended(
        parse("INSERT INTO t (v) SELECT 'x' FROM generate_series(1, 5) RETURNING id"),
        bind(),
        execute(rows=2),
        execute(rows=2),
        execute(),
    ),
    "a portal over several syncs": [
        *simple("BEGIN"),
        (parse("SELECT * FROM t ORDER BY id") + bind(portal="c") + execute("c", 1) + S, "Z"),
        (execute("c", 1) + S, "Z"),
        (run(INSERT, b"x") + execute("c", 1) + S, "Z"),
        (close("c", "P") + S, "Z"),
        *simple("COMMIT"),
    ],
    "a pipeline": extended(run(INSERT, b"x"), run("SELECT count(*) FROM t"), run(INSERT, b"y")),
    "a pipeline of syncs": [
        ((run(INSERT, b"x") + S) * 2 + run("SELECT count(*) FROM t") + S + run(INSERT, b"y") + S, "ZZZZ")
    ],
    "a pipeline with an error in the middle": [
        (run(INSERT, b"x") + run("SELECT 1/0") + run(INSERT, b"y") + S + run(INSERT, b"z") + S, "ZZ")
    ],
    "a pipeline with an error at each stage": [
        (
            parse("SELEC")
            + run(INSERT, b"x")
            + S
            + parse(INSERT)
            + bind()
            + execute()
            + S
            + bind(name="none")
            + execute()
            + S
            + execute("none")
            + S
            + describe("none", "S")
            + run(INSERT, b"y")
            + S
            + parse("SELECT $1::int")
            + bind(b"one")
            + execute()
            + S
            + run(INSERT, b"z")
            + S,
            "ZZZZZZZ",
        )
    ],
    "transactions in a pipeline": [
        (
            run("BEGIN")
            + run(INSERT, b"x")
            + run("COMMIT")
            + S
            + run("BEGIN")
            + run(INSERT, b"y")
            + run("ROLLBACK")
            + S
            + run("BEGIN")
            + S
            + run(INSERT, b"z")
            + S
            + run("COMMIT")
            + S,
            "ZZZZZ",
        )
    ],
    "commits in one batch": extended(
        run("BEGIN"), run(INSERT, b"x"), run("COMMIT"), run("BEGIN"), run(INSERT, b"y"), run("COMMIT")
    ),
    "a failed block is committed": [
        (
            run("BEGIN") + run(INSERT, b"x") + S + run("SELECT 1/0") + S + run("COMMIT") + S + run(INSERT, b"y") + S,
            "ZZZZ",
        )
    ],
    "a commit that fails": [
        (run("BEGIN") + run("INSERT INTO d VALUES (1), (1)") + run("COMMIT") + run(INSERT, b"x") + S, "Z"),
        *extended(run("INSERT INTO d VALUES (1), (1)")),
    ],
    "flushes before the sync": [
        (run(INSERT, b"x") + H, "C"),
        (run("SELECT count(*) FROM t") + H, "C"),
        (run(INSERT, b"y") + H, "C"),
        (S, "Z"),
    ],
    "flushes in a block": [
        (run("BEGIN") + H, "C"),
        (run(INSERT, b"x") + H, "C"),
        (run("COMMIT") + H, "C"),
        (run(INSERT, b"y") + H, "C"),
        (S, "Z"),
    ],
    "a flush after an error": [(run(INSERT, b"x") + run("SELECT 1/0") + H, "E"), (run(INSERT, b"y") + H + S, "Z")],
    "a query in an open batch": [(run(INSERT, b"x") + query("SELECT count(*) FROM t") + S, "ZZ"), *simple("SELECT 2")],
    "a writing query in an open batch": [
        (run(INSERT, b"x") + query("INSERT INTO t (v) VALUES ('y')") + run(INSERT, b"z") + S, "ZZ")
    ],
    "two statements in an open batch": [
        (run(INSERT, b"x") + query("INSERT INTO t (v) VALUES ('y'); SELECT 1/0") + run(INSERT, b"z") + S, "ZZ")
    ],
    "a query in a failed batch": [
        (run("SELECT 1/0") + query("INSERT INTO t (v) VALUES ('y')") + S + run("SELECT 1") + S, "ZZ")
    ],
    "queries without waiting": [
        (query("BEGIN") + run(INSERT, b"x") + S + query("COMMIT") + query("SELECT 1"), "ZZZZ"),
        (query("INSERT INTO t (v) VALUES ('y')") * 3 + run(INSERT, b"z") + S, "ZZZZ"),
    ],
    "what stands alone": [
        *extended(run("VACUUM t")),
        *extended(run("CALL twice()")),
        *extended(run("CREATE INDEX CONCURRENTLY made_later ON t (v)")),
        *extended(run("SELECT 1"), run("VACUUM t")),
        (run("CALL twice()") + H, "C"),
        *extended(),
    ],
    "prepared in SQL": [
        *simple(f"PREPARE p AS {INSERT}"),
        *extended(bind(b"x", name="p"), describe(), execute()),
        *extended(run("EXECUTE p('y')")),
    ],
    "large rows back": extended(
        run("INSERT INTO t (v) SELECT repeat('x', 9999) FROM generate_series(1, 40) RETURNING *")
    ),
    "copy in": [
        (parse("COPY t (v) FROM STDIN") + bind() + execute() + S, "G"),
        (data("x\n") + COPY_DONE + S, "Z"),
        *extended(run(INSERT, b"y")),
    ],
    "copy in, its sync later": [
        (parse("COPY t (v) FROM STDIN") + bind() + execute() + H, "G"),
        (data("x\n") + COPY_DONE + S, "Z"),
        (parse("COPY small FROM STDIN") + bind() + execute() + H, "G"),
        (data("99\n") + COPY_DONE + S, "Z"),
        (parse("COPY no_table FROM STDIN") + bind() + execute() + S, "Z"),
        *extended(run(INSERT, b"y")),
    ],
    "copy out": extended(run("COPY t TO STDOUT")),
    "a listener": [
        *simple("LISTEN here"),
        *extended(run("NOTIFY here, 'x'")),
        *extended(run("SELECT pg_notify('here', 'y')"), run("SELECT 2")),
        (run("BEGIN") + run("NOTIFY here, 'z'") + run("COMMIT") + S, "Z"),
    ],
    "a function call": [
        (message(b"F", struct.pack("!IHHHiiH", ABS, 1, 1, 1, 4, -7, 1)), "Z"),
        *simple("SELECT 1"),
    ],
    "a function that is none": [(message(b"F", struct.pack("!IHHH", 1, 0, 0, 0)), "Z")],
    "a block over everything": [
        *simple("BEGIN", "SAVEPOINT a", "INSERT INTO t (v) VALUES ('x')", "SELECT 1/0", "ROLLBACK TO a"),
        *simple("INSERT INTO t (v) VALUES ('y'); SELECT 1", "COMMIT", "ROLLBACK"),
    ],
    "a failed block": simple("BEGIN", "SELECT 1/0", "SELECT 1", "COMMIT", "SELECT 2"),
    "a text that ends a block": simple(
        "BEGIN", "INSERT INTO t (v) VALUES ('y'); COMMIT; INSERT INTO t (v) VALUES ('x')"
    ),
    "a text that ends a failed block": simple(
        "BEGIN", "SELECT 1/0", "ROLLBACK; BEGIN; INSERT INTO t (v) VALUES ('x'); COMMIT"
    ),
    "serializable": simple("BEGIN ISOLATION LEVEL SERIALIZABLE", "INSERT INTO t (v) SELECT count(*) FROM t", "COMMIT"),
}
