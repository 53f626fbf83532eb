"""asyncpg: its own protocol implementation, `executemany`, binary COPY."""

import asyncio
import os

import asyncpg  # type: ignore[import-untyped]

KEY = os.environ["KEY"]
INSERT = "INSERT INTO effects VALUES ($1, $2)"


async def main() -> None:
    """Do the script."""
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    await connection.execute(INSERT, KEY, "autocommit")
    async with connection.transaction():
        await connection.fetchval("SELECT count(*) FROM effects")
        await connection.execute(INSERT, KEY, "transaction")
    async with connection.transaction():
        await connection.fetchval("SELECT count(*) FROM effects")
    await connection.execute("UPDATE effects SET note = 'update' WHERE key = 'nobody'")
    rolled_back = connection.transaction()
    await rolled_back.start()
    await connection.execute(INSERT, KEY, "rolled back")
    await rolled_back.rollback()
    await connection.executemany(INSERT, [(KEY, "many-1"), (KEY, "many-2")])
    await connection.copy_records_to_table("effects", records=[(KEY, "copy-1"), (KEY, "copy-2")])
    await connection.close()


if __name__ == "__main__":
    asyncio.run(main())
