"""Things made or fetched once and kept in the user's cache directory.

An entry is a directory. It is built beside its place under a lock that dies with its holder, and moved into place in
one step: an entry is there and whole, or it is not there. A second process that wants the same entry waits for the
first; a build that was killed half way leaves nothing that anybody would take for the entry.

``ONECHARGE_CACHE`` names another directory; ``ONECHARGE_MAVEN`` another repository to fetch jars from.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
import uuid
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import platformdirs
from filelock import FileLock, Timeout

from chaos.errors import MissingPart, WrongChecksum

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_CENTRAL = "https://repo1.maven.org/maven2"
_TIMEOUT_S = 60.0
_CONNECTIONS = 6
_HALF = ".half"


class Progress(Protocol):
    """Told how far something slow has come; `done` reaches `total` at the end. Units are bytes or steps."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that shows nothing."""


def directory() -> Path:
    """Where entries are kept.

    Root's is the system's cache: Postgres refuses to run as root, and the user it runs as instead cannot look into
    root's home.
    """
    named = os.environ.get("ONECHARGE_CACHE")
    if named:
        return Path(named).absolute()
    place = platformdirs.site_cache_dir if os.getuid() == 0 else platformdirs.user_cache_dir
    return Path(place("onecharge"))


class Cache:
    """Entries under one directory. `own` is told each half-built path, to be removed if this process is killed."""

    def __init__(
        self, own: Callable[[Path], None], *, progress: Progress = silent, directory: Path | None = None
    ) -> None:
        self.directory = directory or globals()["directory"]()
        self.progress = progress
        self._own = own

    def entry(self, name: str, build: Callable[[Path], None]) -> Path:
        """The directory `name`, filled by ``build(empty_directory)`` if it is not there yet."""
        place = self.directory / name
        if not place.is_dir():
            self._require_writable()
            with self._locked(name):
                if not place.is_dir():
                    self._build(place, build)
        return place

    def _build(self, place: Path, build: Callable[[Path], None]) -> None:
        for abandoned in self.directory.glob(f"{place.name}.*{_HALF}"):  # nobody else builds: the lock is ours
            shutil.rmtree(abandoned, ignore_errors=True)
        # A name that is used once: the keeper of a killed predecessor may be removing its half at this moment.
        half = self.directory / f"{place.name}.{uuid.uuid4().hex}{_HALF}"
        self._own(half)
        try:
            half.mkdir()
            build(half)
            half.rename(place)
        finally:
            shutil.rmtree(half, ignore_errors=True)

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        lock = FileLock(self.directory / f"{name}.lock")
        try:
            lock.acquire(timeout=0.2)
        except Timeout:
            self.progress(f"{name}: another process is making it, waiting", 0, 1)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _require_writable(self) -> None:
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            writable = os.access(self.directory, os.W_OK | os.X_OK)
        except OSError:
            writable = False
        if not writable:
            remedy = "Name a directory that this user can write to in ONECHARGE_CACHE."
            raise MissingPart("a directory for the cache", looked_for=[str(self.directory)], remedy=remedy)


@dataclass(frozen=True)
class Jar:
    """One line of a lock list: SHA-256 in hex, size in bytes, path in the repository."""

    sha256: str
    size: int
    path: str

    @classmethod
    def read_list(cls, text: str) -> list[Jar]:
        """The jars of a lock list; lines that start with # are comments."""
        rows = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
        return [cls(sha256, int(size), path) for sha256, size, path in rows]

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rsplit("/", 1)[-1]


def fetch_jars(what: str, jars: Sequence[Jar], into: Path, progress: Progress) -> None:
    """Download all `jars` into a directory, several at a time, each checked against its sum."""
    base = os.environ.get("ONECHARGE_MAVEN", _CENTRAL).rstrip("/")
    total, done = sum(jar.size for jar in jars), 0
    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        waiting = {pool.submit(_fetch, f"{base}/{jar.path}", jar, into / jar.name): jar for jar in jars}
        try:
            for finished in as_completed(waiting):
                finished.result()
                done += waiting[finished].size
                progress(f"fetching {what}", done, total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fetch(url: str, jar: Jar, target: Path) -> None:
    if not url.startswith(("https://", "http://127.0.0.1:")):
        remedy = "ONECHARGE_MAVEN must be an https:// address, or one on this machine."
        raise MissingPart(jar.name, looked_for=[url], remedy=remedy)
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as reply, target.open("wb") as file:  # noqa: S310 - checked
            while block := reply.read(1 << 18):
                digest.update(block)
                size += len(block)
                file.write(block)
            if size < int(reply.headers.get("Content-Length") or 0):
                raise http.client.IncompleteRead(b"", jar.size - size)  # `read` does not say so
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it is the reply, too
        remedy = f"It could not be fetched ({error}); set ONECHARGE_MAVEN to a repository that is in reach."
        raise MissingPart(jar.name, looked_for=[url], remedy=remedy) from error
    if digest.hexdigest() != jar.sha256:
        target.unlink()
        raise WrongChecksum(jar.name, expected=jar.sha256, found=digest.hexdigest())
