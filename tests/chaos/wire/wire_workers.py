"""Workers for the tests of the wire itself."""

from __future__ import annotations

import os
import signal
import socket
import urllib.request


def go_around() -> None:
    """Connect to a service's own address, which is not told in one word, and stay."""
    with socket.create_connection(("127.0.0.1", int(os.environ["REAL_PORT"]))):
        signal.pause()


def keep_a_child() -> None:
    """Have a child that posts once, and another when that has died."""
    number = 0
    while True:
        if os.fork() == 0:
            body = b'{"tag": "child-%d", "n": 1}' % number
            with urllib.request.urlopen(os.environ["HTTP_URL"], body) as reply:  # noqa: S310 - our own
                reply.read()
            signal.pause()
        os.wait()
        number += 1
