"""A test run's directory of temporary files, which is removed even if everybody who could was killed.

It holds a lock file that a run's keeper has open and locked. Where the lock is free the keeper is gone, and the next
run ends what is left of that run and removes the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

from chaos.errors import MissingPart

VARIABLE = "ONECHARGE_RUN"  # in the environment of every process of a run: its directory
_PREFIX = "onecharge-run-"  # what a sweep looks for: no name that people give to directories of theirs
_ABANDONED_S = 3600.0
_ENOUGH_MEMORY = 2 << 30  # bytes
_LONGEST = 72  # characters; the address of a unix socket in the directory has room for 107


def make() -> tuple[Path, int]:
    """A fresh temporary directory and an open, locked file in it; the lock lasts as long as somebody has it open."""
    while True:
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_places()[0]))
        directory.chmod(0o711)  # a server that refuses to run as root must be able to pass through
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if (directory / "lock").exists():
                return directory, lock
        os.close(lock)  # another run's sweep took it for an abandoned one in this very moment


def _places() -> list[Path]:
    """Where run directories may be, the best first.

    Memory, if there is enough of it and libraries can be loaded from it, as a Java runtime does from its temporary
    directory: copying a prepared Postgres directory, a thousand small files, takes 0.1 s there and 1 s on many disks.
    A TMPDIR that the user has set is respected.
    """
    disk, memory = Path(tempfile.gettempdir()), Path("/dev/shm")  # noqa: S108 - the kernel's name for it
    good = "TMPDIR" not in os.environ and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > _ENOUGH_MEMORY
    in_order = [memory, disk] if good and not os.statvfs(memory).f_flag & os.ST_NOEXEC else [disk, memory]
    places = [place for place in in_order if place.is_dir() and len(str(place)) < _LONGEST]
    if not places:
        raise MissingPart(
            "a place for temporary files",
            looked_for=[str(place) for place in in_order],
            remedy=f"Set TMPDIR to a directory whose path is shorter than {_LONGEST} characters.",
        )
    return places


def end_strays(directory: Path) -> None:
    """Kill what is left of a run whose keeper is gone: processes that left their group before the keeper was killed."""
    mark = f"{VARIABLE}={directory}".encode()
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # somebody else's, or gone by now
            if mark in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGKILL)


def sweep() -> None:
    """Remove this user's run directories that nobody holds: their test run and its keeper were both killed."""
    for directory in (found for place in _places() if place.is_dir() for found in place.glob(f"{_PREFIX}*")):
        with contextlib.suppress(OSError):
            status = directory.stat()
            lock = directory / "lock"
            if status.st_uid != os.getuid():
                continue
            if not lock.exists():
                if time.time() - status.st_mtime > _ABANDONED_S:
                    shutil.rmtree(directory, ignore_errors=True)
                continue
            with lock.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                end_strays(directory)
                shutil.rmtree(directory, ignore_errors=True)
