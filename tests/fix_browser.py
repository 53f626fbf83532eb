"""The machine's Chromium, for what people look at, and the line between the two."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import sync_playwright

from chaos import MissingPart

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The machine's Chromium. Where there is none the tests are skipped, and fail in CI."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        missing = MissingPart("Chromium", looked_for=NAMES, remedy="Install it: apt-get install chromium.")
        if os.environ.get("CI", "") in {"", "0", "false"}:
            pytest.skip(str(missing))
        raise missing
    root = ["--no-sandbox"] if os.getuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=[*QUIET, *root])
        yield browser
        browser.close()


class Line:
    """A browser's line to a server on this machine, which can be cut. Use it as a context manager.

    To have the browser off line (`set_offline`) is not the same: a stream that is open is not cut by that.
    """

    def __init__(self, port: int) -> None:
        self._far = ("127.0.0.1", port)
        self._door = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._door.getsockname()[1]}/"
        self.sent, self.got = bytearray(), bytearray()  # by the browser, since the line was made or mended
        self._ends, self._whole, self._change = set[socket.socket](), True, threading.Lock()
        self._threads = [threading.Thread(target=self._answer, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cut()
        self._door.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._door.close()

    def cut(self) -> None:
        """End what goes over it, and whatever is begun until it is mended."""
        with self._change:
            self._whole = False
            for end in self._ends:
                _shut(end)

    def mend(self) -> None:
        """Carry again."""
        with self._change:
            self.sent.clear()
            self.got.clear()
            self._whole = True

    def _answer(self) -> None:
        with contextlib.suppress(OSError):  # the door was shut
            while True:
                thread = threading.Thread(target=self._carry, args=[self._door.accept()[0]], daemon=True)
                thread.start()
                self._threads.append(thread)

    def _carry(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError), socket.create_connection(self._far) as far:
            with self._change:
                if not self._whole:
                    return
                self._ends |= {near, far}
            back = threading.Thread(target=_pump, args=[far, near, self.got], daemon=True)
            back.start()
            _pump(near, far, self.sent)
            back.join()
            with self._change:
                self._ends -= {near, far}


def _pump(source: socket.socket, sink: socket.socket, seen: bytearray) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            seen += data
            sink.sendall(data)
    _shut(source)
    _shut(sink)


def _shut(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was
        end.shutdown(socket.SHUT_RDWR)
