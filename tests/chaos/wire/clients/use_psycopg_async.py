"""psycopg, asynchronous: it begins transactions by itself and `commit()` ends them; a pipeline, COPY."""

import asyncio
import os

import psycopg

KEY = os.environ["KEY"]
INSERT = "INSERT INTO effects VALUES (%s, %s)"


async def main() -> None:
    """Do the script."""
    async with await psycopg.AsyncConnection.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        await connection.execute(INSERT, (KEY, "autocommit"))
        await connection.set_autocommit(False)
        await connection.execute("SELECT count(*) FROM effects")
        await connection.execute(INSERT, (KEY, "transaction"))
        await connection.commit()
        await connection.execute("SELECT count(*) FROM effects")
        await connection.commit()
        await connection.set_autocommit(True)
        await connection.execute("UPDATE effects SET note = 'update' WHERE key = 'nobody'")
        await connection.set_autocommit(False)
        await connection.execute(INSERT, (KEY, "rolled back"))
        await connection.rollback()
        async with connection.pipeline():
            await connection.execute(INSERT, (KEY, "pipeline-1"))
            await connection.execute(INSERT, (KEY, "pipeline-2"))
            await connection.commit()
        async with connection.cursor().copy("COPY effects FROM STDIN (FORMAT BINARY)") as copy:
            await copy.write_row((KEY, "copy-1"))
            await copy.write_row((KEY, "copy-2"))
        await connection.commit()


if __name__ == "__main__":
    asyncio.run(main())
