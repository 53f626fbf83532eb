"""A test run's directory of temporary files, which is removed even if everybody who could was killed.

It holds a lock file that a run's keeper, and every process it starts, has open and locked. Where the lock is free,
nobody of that run is left, and the next run removes the directory.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from chaos.errors import MissingPart

_PREFIX = "onecharge-run-"  # what a sweep looks for: no name that people give to directories of theirs
_ABANDONED_S = 3600.0
_ENOUGH_MEMORY = 2 << 30  # bytes
_LONGEST = 72  # characters; the address of a unix socket in the directory has room for 107


def make() -> tuple[Path, int]:
    """A fresh temporary directory and an open, locked file in it; the lock lasts as long as anyone has it open."""
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
                shutil.rmtree(directory, ignore_errors=True)
