"""Workers to be forked by a zygote in these tests."""

from __future__ import annotations

import atexit
import signal
import sys

print("printed at import")  # noqa: T201 - into a log, and only once
at_import = list(sys.argv)


def sleep() -> None:
    """Wait to be ended."""
    signal.pause()


def speak() -> None:
    """Write to the log, and end."""
    print("I speak", sys.argv)  # noqa: T201 - into a log


def say_farewell() -> None:
    """End normally when the worker is asked to by SIGTERM, with something to do at the end."""
    atexit.register(print, "farewell")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    print("ready")  # noqa: T201 - into a log
    signal.pause()
