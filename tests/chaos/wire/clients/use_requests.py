"""requests: a session, which is urllib3 and the standard library's client."""

import os

import requests

KEY = os.environ["KEY"]
URL = f"{os.environ['HTTP_URL']}/effects/{KEY}"
CHUNKS = (f'{{"key": "{KEY}", '.encode(), b'"note": "chunked"}')


def main() -> None:
    """Do the script."""
    with requests.Session() as session:
        session.get(URL, timeout=30).raise_for_status()
        session.post(URL, json={"key": KEY, "note": "post"}, timeout=30).raise_for_status()
        session.post(URL, data=iter(CHUNKS), timeout=30).raise_for_status()
        session.put(URL, json={"key": KEY, "note": "put"}, timeout=30).raise_for_status()
        session.delete(URL, timeout=30).raise_for_status()


if __name__ == "__main__":
    main()
