"""httpx: a blocking client, which is httpcore and h11."""

import os

import httpx

KEY = os.environ["KEY"]
URL = f"{os.environ['HTTP_URL']}/effects/{KEY}"
CHUNKS = (f'{{"key": "{KEY}", '.encode(), b'"note": "chunked"}')


def main() -> None:
    """Do the script."""
    with httpx.Client(timeout=30) as client:
        client.get(URL).raise_for_status()
        client.post(URL, json={"key": KEY, "note": "post"}).raise_for_status()
        client.post(URL, content=iter(CHUNKS)).raise_for_status()
        client.put(URL, json={"key": KEY, "note": "put"}).raise_for_status()
        client.delete(URL).raise_for_status()


if __name__ == "__main__":
    main()
