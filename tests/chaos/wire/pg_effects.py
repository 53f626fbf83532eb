"""What clients may do to a Postgres server, which effects it has, and when."""

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
    execute,
    extended,
    parse,
    query,
    run,
    simple,
)

if TYPE_CHECKING:
    from tests.chaos.wire.pg_client import Exchange

SCHEMA = """
CREATE TABLE t (id serial PRIMARY KEY, v text);
CREATE TABLE d (id int CONSTRAINT once UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE keys (id uuid DEFAULT gen_random_uuid(), v text);
CREATE TABLE slow (n int);
CREATE SEQUENCE s;
CREATE FUNCTION adds(v text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (v) VALUES (v); RETURN 7; END $$;
CREATE FUNCTION looks() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM t';
CREATE VIEW adding AS SELECT adds('view') AS n;
CREATE PROCEDURE twice() LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO t (v) VALUES ('one'); COMMIT; INSERT INTO t (v) VALUES ('two'); END $$;
CREATE PROCEDURE once() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO t (v) VALUES ('one'); END $$;
CREATE FUNCTION sleeps() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(NEW.n); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION sleeps();
CREATE PUBLICATION everything FOR ALL TABLES;
"""
RESET = """
TRUNCATE t, d, keys, slow RESTART IDENTITY; DROP INDEX IF EXISTS made_later; DROP TABLE IF EXISTS made;
ALTER SEQUENCE s RESTART; INSERT INTO t (v) VALUES ('a'), ('b');
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
"""

INSERT = "INSERT INTO t (v) VALUES ('x')"
ADD = "INSERT INTO t (v) VALUES ($1)"


def both(text: str) -> list[Exchange]:
    """A text by either protocol."""
    return [*simple(text), *extended(run(text))]


def copy(text: str, *sent: str, end: bytes = COPY_DONE) -> list[Exchange]:
    """A COPY FROM STDIN."""
    return [(query(text), "G"), (b"".join(map(data, sent)) + end, "Z")]


def call(function: int, *numbers: int) -> bytes:
    """FunctionCall, with numbers."""
    values = b"".join(struct.pack("!ii", 4, number) for number in numbers)
    return message(b"F", struct.pack("!IHHH", function, 1, 1, len(numbers)) + values + struct.pack("!H", 1))


LO_CREAT, LO_OPEN, ABS = 957, 952, 1397
WRITE, COMMIT, REFUSED = "write done", "commit done", "commit refused"
CASES: dict[str, tuple[list[Exchange], list[str]]] = {
    # -- what looks like a read
    "DO": (both("DO $$ BEGIN INSERT INTO t (v) VALUES ('x'); END $$"), [WRITE] * 2),
    "DO without effect": (both("DO $$ BEGIN PERFORM count(*) FROM t; END $$"), []),
    "a function that writes": (both("SELECT adds('x')"), [WRITE] * 2),
    "a function that reads": (both("SELECT looks()"), []),
    "a view that writes": (both("SELECT * FROM adding"), [WRITE] * 2),
    "WITH INSERT": (both(f"WITH new AS ({INSERT} RETURNING id) TABLE new"), [WRITE] * 2),
    "WITH INSERT of no row": (both("WITH n AS (INSERT INTO t SELECT WHERE false RETURNING 1) SELECT * FROM n"), []),
    "comments in front": (both(f"/* in /* front */ */ -- SELECT\n {INSERT} -- behind"), [WRITE] * 2),
    "EXPLAIN ANALYZE": (both(f"EXPLAIN ANALYZE {INSERT}"), [WRITE] * 2),
    "EXPLAIN": (both(f"EXPLAIN {INSERT}"), []),
    "SELECT INTO": (simple("SELECT 1 AS n INTO made"), [WRITE]),
    "a cursor's rows": (simple("BEGIN", "DECLARE c CURSOR FOR SELECT adds('x')", "FETCH c", "COMMIT"), [COMMIT]),
    # -- what looks like a write
    "an update of no row": (both("UPDATE t SET v = 'x' WHERE false"), []),
    "a delete of no row": (both("DELETE FROM t WHERE v = 'none'"), []),
    "on conflict do nothing": (both("INSERT INTO t (id) VALUES (1) ON CONFLICT DO NOTHING"), []),
    "a block of no row": (simple("BEGIN", "UPDATE t SET v = 'x' WHERE false", "COMMIT"), []),
    "a read-only block": (simple("BEGIN", "SELECT * FROM t", "SELECT looks()", "COMMIT"), []),
    "a row lock": (both("SELECT * FROM t FOR UPDATE"), []),
    "a row lock in a block": (simple("BEGIN", "SELECT * FROM t FOR NO KEY UPDATE", "COMMIT"), []),
    "a sequence": (both("SELECT nextval('s')") * 40, []),
    "a sequence in blocks": (simple("BEGIN", "SELECT nextval('s')", "COMMIT") * 40, []),
    "a sequence for many": (both("SELECT nextval('s') FROM generate_series(1, 40)"), []),
    "a sequence and a row": (simple("BEGIN", "SELECT nextval('s')", INSERT, "COMMIT"), [COMMIT]),
    "advisory locks": (
        [*both("SELECT pg_advisory_lock(1)"), *simple("BEGIN", "SELECT pg_advisory_xact_lock(2)", "COMMIT")],
        [],
    ),
    "a table lock": (simple("BEGIN", "LOCK TABLE t", "COMMIT"), []),
    "settings": (both("SET application_name = 'other'") + both("SELECT set_config('foo.bar', '1', false)"), []),
    "an error": (both("INSERT INTO t (id) VALUES (1)"), []),
    "an error at the commit": (both("INSERT INTO d VALUES (1), (1)"), ["write refused"] * 2),
    # -- transactions
    "a block": (simple("BEGIN", INSERT, "COMMIT"), [COMMIT]),
    "a block that ends": (simple("START TRANSACTION", INSERT, "/* now */ END"), [COMMIT]),
    "a block rolled back": (simple("BEGIN", INSERT, "ROLLBACK", "SELECT * FROM t"), []),
    "a failed block": (simple("BEGIN", INSERT, "SELECT 1/0", "COMMIT"), []),
    "a block that fails at its commit": (simple("BEGIN", "INSERT INTO d VALUES (1), (1)", "COMMIT"), [REFUSED]),
    "a chain": (simple("BEGIN", INSERT, "COMMIT AND CHAIN", "COMMIT AND CHAIN", INSERT, "COMMIT"), [COMMIT] * 2),
    "a block by the extended protocol": (
        [*extended(run("BEGIN")), *extended(run(ADD, b"x")), *extended(run("COMMIT"))],
        [COMMIT],
    ),
    "a block after a block": (simple("BEGIN", INSERT, "ROLLBACK") + extended(parse("SELECT 1"), bind(), execute()), []),
    "what was flushed and not synced": (
        [(run(ADD, b"x") + H, "C"), (run("SELECT 1") + H, "C"), (S, "Z")],
        [WRITE],
    ),
    "a savepoint rolled back": (
        simple("BEGIN", "SAVEPOINT a", INSERT, "ROLLBACK TO a", "SELECT 1", "COMMIT"),
        [],
    ),
    "a savepoint rolled back, then more": (
        simple("BEGIN", "SAVEPOINT a", INSERT, "ROLLBACK TO a", INSERT, "RELEASE a", "COMMIT"),
        [COMMIT],
    ),
    "a savepoint released": (simple("BEGIN", "SAVEPOINT a", INSERT, "RELEASE a", "COMMIT"), [COMMIT]),
    "nested savepoints, the outer rolled back": (
        simple("BEGIN", "SAVEPOINT a", "SAVEPOINT b", INSERT, "RELEASE b", "ROLLBACK TO a", "COMMIT"),
        [],
    ),
    "nested savepoints, the inner rolled back": (
        simple("BEGIN", "SAVEPOINT a", INSERT, "SAVEPOINT b", "SELECT 1/0", "ROLLBACK TO b", "RELEASE a", "COMMIT"),
        [COMMIT],
    ),
    "savepoints of one name": (
        simple("BEGIN", "SAVEPOINT a", "SAVEPOINT a", INSERT, "ROLLBACK TO a", "RELEASE a", "COMMIT"),
        [],
    ),
    "a savepoint by the extended protocol": (
        extended(run("BEGIN"), run("SAVEPOINT a"), run(ADD, b"x"), run("ROLLBACK TO a"), run("COMMIT")),
        [],
    ),
    "two-phase": (
        simple("BEGIN", INSERT, "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'"),
        ["prepare_transaction done", "commit_prepared done"],
    ),
    "two-phase, rolled back": (
        simple("BEGIN", INSERT, "PREPARE TRANSACTION 'y'", "ROLLBACK PREPARED 'y'"),
        ["prepare_transaction done", "rollback_prepared done"],
    ),
    "two-phase, none": (
        simple("BEGIN", "PREPARE TRANSACTION 'z'", "ROLLBACK PREPARED 'none'"),
        ["rollback_prepared refused"],
    ),
    # -- several in one
    "BEGIN to COMMIT in one Query": (simple(f"BEGIN; {INSERT}; COMMIT"), [COMMIT]),
    "BEGIN to COMMIT of no row in one Query": (simple("BEGIN; DELETE FROM t WHERE false; COMMIT"), []),
    "BEGIN to ROLLBACK in one Query": (simple(f"BEGIN; {INSERT}; ROLLBACK"), []),
    "BEGIN to COMMIT with an error": (simple(f"BEGIN; {INSERT}; SELECT 1/0; COMMIT", "ROLLBACK"), []),
    "the end of a block in one Query": (simple("BEGIN", f"{INSERT}; COMMIT"), [COMMIT]),
    "COMMIT that fails in one Query": (simple("BEGIN; INSERT INTO d VALUES (1), (1); COMMIT"), [REFUSED]),
    "two writes in one Query": (simple(f"{INSERT}; {INSERT}"), [WRITE]),
    "no write in one Query": (simple("DELETE FROM t WHERE false; SELECT * FROM t"), []),
    "an error at the end of one Query": (simple(f"{INSERT}; SELECT 1/0", f"{INSERT}; SELEC"), []),
    "two transactions in one Query": (simple(f"BEGIN; {INSERT}; COMMIT; {INSERT}"), [WRITE]),
    "a mistake behind a COMMIT": (simple(f"BEGIN; {INSERT}; COMMIT; SELEC"), ["write refused"]),
    "what nobody knows": (simple("SELECT 'half"), ["write refused"]),
    "EXECUTE": (simple(f"PREPARE p AS {ADD}", "EXECUTE p('x')") + extended(run("EXECUTE p('y')")), [WRITE] * 2),
    "EXECUTE of a read": (simple("PREPARE p AS SELECT $1::text", "EXECUTE p('x')"), []),
    "pipelined commits": (
        [((run("BEGIN") + run(ADD, b"x") + run("COMMIT") + S) * 3, "ZZZ")],
        [COMMIT] * 3,
    ),
    "commits in one batch": (extended(*(run("BEGIN"), run(ADD, b"x"), run("COMMIT")) * 3), [COMMIT] * 3),
    "pipelined writes": ([((run(ADD, b"x") + S) * 3, "ZZZ")], [WRITE] * 3),
    "a batch of writes": (extended(*[run(ADD, b"x")] * 3), [WRITE]),
    "a batch with an error": (extended(run(ADD, b"x"), run("SELECT 1/0"), run(ADD, b"y")), []),
    "a commit before an error": (
        extended(run("BEGIN"), run(ADD, b"x"), run("COMMIT"), run("SELECT 1/0"), run(ADD, b"y")),
        [COMMIT],
    ),
    "a query ends a batch": ([(run(ADD, b"x") + query("SELECT 1") + S, "ZZ")], [WRITE]),
    "BEGIN without waiting": ([(query("BEGIN") + run(ADD, b"x") + S, "ZZ"), (query("COMMIT"), "Z")], [COMMIT]),
    "rows by and by": (
        extended(parse("INSERT INTO t SELECT 9 RETURNING id"), bind(), execute(rows=1), execute(rows=1)),
        [WRITE],
    ),
    # -- COPY
    "COPY in": (copy("COPY t (v) FROM STDIN", "x\n"), [WRITE]),
    "COPY in, in a block": (simple("BEGIN") + copy("COPY t (v) FROM STDIN", "x\n") + simple("COMMIT"), [COMMIT]),
    "COPY in, nothing": (copy("COPY t (v) FROM STDIN"), []),
    "COPY in, nothing, in a block": (simple("BEGIN") + copy("COPY t FROM STDIN") + simple("COMMIT"), []),
    "COPY in, failed by the client": (copy("COPY t (v) FROM STDIN", "x\n", end=message(b"f", b"no\0")), []),
    "COPY in, failed at its end": (copy("COPY d FROM STDIN", "1\n1\n"), ["write refused"]),
    "COPY in by the extended protocol": (
        [(run("COPY t (v) FROM STDIN") + S, "G"), (data("x\n") + COPY_DONE + S, "Z")],
        [WRITE],
    ),
    "COPY in, within a text": (
        [(query("BEGIN; COPY t (v) FROM STDIN; COMMIT"), "G"), (data("x\n") + COPY_DONE, "Z")],
        [WRITE],
    ),
    "COPY out": (both("COPY t TO STDOUT") + both("COPY (SELECT * FROM t) TO STDOUT"), []),
    "COPY out of what writes": (both(f"COPY ({INSERT} RETURNING id) TO STDOUT"), [WRITE] * 2),
    # -- what no row shows
    "NOTIFY": (both("NOTIFY here, 'x'"), [WRITE] * 2),
    "NOTIFY in a block": (simple("BEGIN", "NOTIFY here, 'x'", "COMMIT"), [COMMIT]),
    "NOTIFY taken back": (simple("BEGIN", "SAVEPOINT a", "NOTIFY here", "ROLLBACK TO a", "COMMIT"), []),
    "pg_notify": (both("SELECT pg_notify('here', 'x')"), [WRITE] * 2),
    "pg_notify of no row": (both("SELECT pg_notify('here', v) FROM t WHERE false"), []),
    "LISTEN": (both("LISTEN here") + both("UNLISTEN here"), []),
    "a large object": (both("SELECT lo_from_bytea(0, 'x')"), [WRITE] * 2),
    "a large object by a call": ([(call(LO_CREAT, 0x60000), "Z")], ["call done"]),
    "a large object by a call in a block": (
        [*simple("BEGIN"), (call(LO_CREAT, 0x60000), "Z"), *simple("COMMIT")],
        [COMMIT],
    ),
    "a call": ([(call(ABS, -7), "Z"), (call(1), "Z")], ["call done", "call refused"]),
    "DDL": (both("CREATE TABLE IF NOT EXISTS made (n int)"), [WRITE]),
    "TRUNCATE": (simple("BEGIN", "TRUNCATE t", "COMMIT"), [COMMIT]),
    # -- what commits by itself
    "VACUUM": (both("VACUUM t"), [WRITE] * 2),
    "CALL": (both("CALL twice()") + both("CALL once()"), [WRITE] * 4),
    "CALL, its sync later": ([(run("CALL once()") + H, "C"), (S, "Z")], [WRITE]),
    "CALL in a block": (simple("BEGIN", "CALL once()", "COMMIT"), [COMMIT]),
    "DO with COMMIT": (both("DO $$ BEGIN INSERT INTO t (v) VALUES ('x'); COMMIT; END $$"), [WRITE] * 2),
    "CREATE INDEX CONCURRENTLY": (simple("CREATE INDEX CONCURRENTLY made_later ON t (v)"), [WRITE]),
    "CREATE INDEX CONCURRENTLY in a block": (simple("BEGIN", "CREATE INDEX CONCURRENTLY m ON t (v)", "ROLLBACK"), []),
    "CREATE DATABASE": (simple("CREATE DATABASE more", "DROP DATABASE more"), [WRITE] * 2),
    "prepared long ago": (
        [
            (parse(ADD, "p") + parse("COMMIT", "c") + S, "Z"),
            *simple("SELECT 1"),
            (bind(b"x", name="p") + execute() + S, "Z"),
            *simple("BEGIN"),
            (bind(b"y", name="p") + execute() + bind(name="c", portal="q") + execute("q") + S, "Z"),
            (close("p") + S, "Z"),
        ],
        [WRITE, COMMIT],
    ),
    "a name that was not given twice": (
        [
            (parse("COMMIT", "c") + S, "Z"),
            (parse("SELECT 1", "c") + S, "Z"),
            *simple("BEGIN", INSERT),
            (bind(name="c") + execute() + S, "Z"),
        ],
        [COMMIT],
    ),
}

EVIDENT = (
    "DO",
    "a block",
    "a chain",
    "a block by the extended protocol",
    "what was flushed and not synced",
    "the end of a block in one Query",
    "two writes in one Query",
    "EXECUTE",
    "pipelined commits",
    "commits in one batch",
    "pipelined writes",
    "COPY in, in a block",
    "prepared long ago",
)
"""Those that write rows of `t` and nothing else, each effect some."""

COUNT = "SELECT count(*) FROM t WHERE v NOT IN ('a', 'b')"
MOMENTS: dict[str, tuple[list[Exchange], str, int, int]] = {
    "a simple insert": (simple(INSERT), "write#1", 0, 1),
    "an insert": (extended(run(ADD, b"x")), "write#1", 0, 1),
    "a batch": (extended(run(ADD, b"x"), run(ADD, b"y")), "write#1", 0, 2),
    "the second of two batches": ([((run(ADD, b"x") + S) * 2, "ZZ")], "write#2", 1, 2),
    "two statements": (simple(f"{INSERT}; {INSERT}"), "write#1", 0, 2),
    "a function": (simple("SELECT adds('x')"), "write#1", 0, 1),
    "a block": (simple("BEGIN", INSERT, "COMMIT"), "commit#1", 0, 1),
    "a block in one": (simple(f"BEGIN; {INSERT}; COMMIT"), "commit#1", 0, 1),
    "the end of a block in one": (simple("BEGIN", f"{INSERT}; COMMIT"), "commit#1", 0, 1),
    "transactions in one": (simple(f"BEGIN; {INSERT}; COMMIT; {INSERT}"), "write#1", 0, 2),
    "a batch with commits": (extended(*(run("BEGIN"), run(ADD, b"x"), run("COMMIT")) * 2), "commit#2", 1, 2),
    "pipelined commits": ([((run("BEGIN") + run(ADD, b"x") + run("COMMIT") + S) * 2, "ZZ")], "commit#2", 1, 2),
    "a copy": (copy("COPY t (v) FROM STDIN", "x\n", "y\n"), "write#1", 0, 2),
    "a copy by the extended protocol": (
        [(run("COPY t (v) FROM STDIN") + S, "G"), (data("x\n") + COPY_DONE + S, "Z")],
        "write#1", 0, 1,
    ),
    "a procedure": (simple("CALL twice()"), "write#1", 0, 2),
    "a procedure by the extended protocol": (extended(run("CALL once()")), "write#1", 0, 1),
    "two-phase": (simple("BEGIN", INSERT, "PREPARE TRANSACTION 'm'", "COMMIT PREPARED 'm'"), "commit_prepared#1", 0, 1),
    "many rows back": (
        simple("INSERT INTO t (v) SELECT repeat('x', 9999) FROM generate_series(1, 40) RETURNING *"), "write#1", 0, 40,
    ),
}  # fmt: skip
