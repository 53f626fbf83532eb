"""aiohttp: asynchronous, with a parser of its own."""

import asyncio
import os
from collections.abc import AsyncIterator

import aiohttp

KEY = os.environ["KEY"]
URL = f"{os.environ['HTTP_URL']}/effects/{KEY}"


async def chunks() -> AsyncIterator[bytes]:
    """A body whose length is not known beforehand."""
    yield f'{{"key": "{KEY}", '.encode()
    yield b'"note": "chunked"}'


async def main() -> None:
    """Do the script."""
    async with aiohttp.ClientSession(raise_for_status=True) as session:
        await (await session.get(URL)).read()
        await (await session.post(URL, json={"key": KEY, "note": "post"})).read()
        await (await session.post(URL, data=chunks())).read()
        await (await session.put(URL, json={"key": KEY, "note": "put"})).read()
        await (await session.delete(URL)).read()


if __name__ == "__main__":
    asyncio.run(main())
