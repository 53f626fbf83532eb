"""psycopg, blocking: autocommit and `transaction()`, a pipeline, `executemany`, COPY."""

import os

import psycopg

KEY = os.environ["KEY"]
INSERT = "INSERT INTO effects VALUES (%s, %s)"


def main() -> None:
    """Do the script."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(INSERT, (KEY, "autocommit"))
        with connection.transaction():
            connection.execute("SELECT count(*) FROM effects")
            connection.execute(INSERT, (KEY, "transaction"))
        with connection.transaction():
            connection.execute("SELECT count(*) FROM effects")
        connection.execute("UPDATE effects SET note = 'update' WHERE key = 'nobody'")
        with connection.transaction():
            connection.execute(INSERT, (KEY, "rolled back"))
            raise psycopg.Rollback
        with connection.pipeline(), connection.transaction():
            connection.execute(INSERT, (KEY, "pipeline-1"))
            connection.execute(INSERT, (KEY, "pipeline-2"))
        with connection.cursor() as cursor:
            cursor.executemany(INSERT, [(KEY, "many-1"), (KEY, "many-2")])
            with cursor.copy("COPY effects FROM STDIN") as copy:
                copy.write_row((KEY, "copy-1"))
                copy.write_row((KEY, "copy-2"))


if __name__ == "__main__":
    main()
