"""A cache entry is there and whole, or not there, however many make it at once and whoever is killed meanwhile."""

from __future__ import annotations

import hashlib
import http.server
import signal
import threading
from typing import TYPE_CHECKING, Any

import psutil
import pytest

from chaos.errors import MissingPart, WrongChecksum
from chaos.services.cache import Cache, Jar, directory, fetch_jars
from chaos.services.ports import lease_port
from tests.chaos.owner import Owner, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CONTENT = {f"/some/{number}.jar": bytes([number]) * (300_000 + number) for number in range(3)}
LOCK = "# a comment\n" + "".join(
    f"{hashlib.sha256(content).hexdigest()} {len(content)} {path[1:]}\n" for path, content in CONTENT.items()
)
FETCH = """
from chaos.services.cache import Cache, Jar, fetch_jars
jars = Jar.read_list(os.environ["LOCK"])
with Supervisor(Path(os.environ["LOGS"])) as supervisor:
    cache = Cache(supervisor.own, progress=lambda what, done, total: tell(progress=what))
    tell(began=True)
    place = cache.entry("jars", lambda place: fetch_jars("jars", jars, place, cache.progress))
    tell(place=str(place), files=sorted(file.name for file in place.iterdir()))
    signal.pause()
"""


class Repository:
    """An HTTP server with the files above. It counts requests, and stops half way through each until `open` is set."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.open = threading.Event()
        self.open.set()
        self.content = dict(CONTENT)
        self.cut_short = False
        repository = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.requests.append(self.path)
                content = repository.content.get(self.path)
                self.send_response(200 if content else 404)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                if not content:
                    return
                half = len(content) // 2
                self.wfile.write(content[:half])
                repository.open.wait(30)
                if not repository.cut_short:
                    self.wfile.write(content[half:])

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_: Any) -> None:
                """Say nothing of clients that were killed."""

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Repository]:
    """A repository that fetches go to, and an empty cache."""
    repository = Repository()
    monkeypatch.setenv("ONECHARGE_MAVEN", repository.url)
    monkeypatch.setenv("ONECHARGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCK", LOCK)
    serving = threading.Thread(target=repository.server.serve_forever, args=(0.01,))
    serving.start()
    yield repository
    repository.open.set()
    repository.server.shutdown()
    serving.join()
    repository.server.server_close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Owner]]:
    """Starts a process that fetches, and waits until it has begun."""
    owners = []

    def start(name: str) -> Owner:
        (tmp_path / name).mkdir()
        owner = Owner(FETCH, tmp_path / name)
        owners.append(owner)
        assert owner.told() == {"began": True}
        return owner

    yield start
    for owner in owners:
        owner.__exit__()


def arrived(owner: Owner) -> dict[str, Any]:
    """What the process says when it has the entry."""
    while "place" not in (told := owner.told()):
        pass
    return told


def entries(tmp_path: Path) -> list[str]:
    """What is in the cache directory, but for lock files."""
    return sorted(found.name for found in (tmp_path / "cache").iterdir() if found.suffix != ".lock")


def test_one_download_for_two(repository: Repository, start: Callable[[str], Owner], tmp_path: Path) -> None:
    """Of two processes that want an entry at once one fetches it, the other says that it waits; both get it whole."""
    repository.open.clear()
    first = start("first")
    until(lambda: len(repository.requests) == len(CONTENT))
    second = start("second")
    assert second.told() == {"progress": "jars: another process is making it, waiting"}
    repository.open.set()

    assert arrived(first)["files"] == arrived(second)["files"] == ["0.jar", "1.jar", "2.jar"]
    assert sorted(CONTENT) == sorted(repository.requests)
    assert entries(tmp_path) == ["jars"]
    assert all((tmp_path / "cache/jars" / path.rpartition("/")[2]).read_bytes() == CONTENT[path] for path in CONTENT)


def test_killed_half_way(repository: Repository, start: Callable[[str], Owner], tmp_path: Path) -> None:
    """A fetch that is SIGKILLed half way leaves nothing, and the process that waits for it makes the entry instead."""
    repository.open.clear()
    first = start("first")
    until(lambda: len(repository.requests) == len(CONTENT))
    second = start("second")
    assert "waiting" in second.told()["progress"]
    assert len(entries(tmp_path)) == 1
    assert entries(tmp_path)[0].endswith(".half")

    [keeper] = psutil.Process(first.process.pid).children()
    keeper.suspend()
    first.end(signal.SIGKILL)
    until(lambda: len(repository.requests) == 2 * len(CONTENT))
    keeper.resume()  # as late as it may be, it removes what was its own and nothing else
    until(lambda: not first.left())
    repository.open.set()

    assert arrived(second)["files"] == ["0.jar", "1.jar", "2.jar"]
    assert entries(tmp_path) == ["jars"]


def test_nothing_is_left_of_a_killed_fetch(
    repository: Repository, start: Callable[[str], Owner], tmp_path: Path
) -> None:
    """After a SIGKILL half way there is no half entry, and the next fetch succeeds."""
    repository.open.clear()
    owner = start("first")
    until(lambda: repository.requests)
    owner.end(signal.SIGKILL)
    until(lambda: not owner.left())
    assert entries(tmp_path) == []

    repository.open.set()
    assert arrived(start("second"))["files"] == ["0.jar", "1.jar", "2.jar"]


def test_abandoned_half_is_removed(repository: Repository, start: Callable[[str], Owner], tmp_path: Path) -> None:
    """What a process left whose keeper was killed as well goes when the entry is made."""
    left = tmp_path / "cache" / "jars.0123.half"
    left.mkdir(parents=True)

    arrived(start("next"))

    assert entries(tmp_path) == ["jars"]
    assert repository.requests


@pytest.fixture
def fetch(repository: Repository) -> Callable[[], Path]:
    """Fetches into the cache, in this process."""
    cache = Cache(lambda _path: None)
    assert repository.open.is_set()
    return lambda: cache.entry("jars", lambda place: fetch_jars("jars", Jar.read_list(LOCK), place, cache.progress))


def test_wrong_checksum(repository: Repository, fetch: Callable[[], Path], tmp_path: Path) -> None:
    """A file that is not the one asked for is named with both sums and not kept; the right one is fetched later."""
    wrong = b"something else" * 1000
    repository.content["/some/1.jar"] = wrong

    with pytest.raises(WrongChecksum) as raised:
        fetch()

    assert raised.value.file == "1.jar"
    assert raised.value.expected == hashlib.sha256(CONTENT["/some/1.jar"]).hexdigest()
    assert raised.value.found == hashlib.sha256(wrong).hexdigest()
    assert raised.value.expected in str(raised.value)
    assert raised.value.found in str(raised.value)
    assert entries(tmp_path) == []
    repository.content = dict(CONTENT)
    assert len(list(fetch().iterdir())) == 3


def test_cut_short(repository: Repository, fetch: Callable[[], Path], tmp_path: Path) -> None:
    """A download that ends early is not taken for a changed file: it could not be fetched."""
    repository.cut_short = True

    with pytest.raises(MissingPart, match=r"It could not be fetched .*IncompleteRead"):
        fetch()

    assert entries(tmp_path) == []


def test_unreachable(fetch: Callable[[], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A repository out of reach, or without the file, is a missing part that names the address and what to set."""
    port = lease_port()
    monkeypatch.setenv("ONECHARGE_MAVEN", f"http://{port.address}")
    with pytest.raises(MissingPart, match=rf"looked for http://{port.address}/some/\d.jar\. .*set ONECHARGE_MAVEN"):
        fetch()
    monkeypatch.setenv("ONECHARGE_MAVEN", "http://example.com")
    with pytest.raises(MissingPart, match="must be an https:// address"):
        fetch()

    assert entries(tmp_path) == []
    port.close()


def test_no_such_file(repository: Repository, fetch: Callable[[], Path]) -> None:
    """A repository that does not have a file says so by its status."""
    del repository.content["/some/2.jar"]

    with pytest.raises(MissingPart, match=r"2\.jar is missing: .*404"):
        fetch()


def test_whole_entry_is_used_as_it_is(repository: Repository, fetch: Callable[[], Path]) -> None:
    """An entry that is there is not made again, and progress reaches the total once."""
    steps: list[tuple[str, int, int]] = []
    cache = Cache(lambda _path: None, progress=lambda *step: steps.append(step))
    jars = Jar.read_list(LOCK)
    place = cache.entry("jars", lambda place: fetch_jars("jars", jars, place, cache.progress))

    assert place == fetch()
    assert len(repository.requests) == 3
    assert [done == total for _, done, total in steps] == [False, False, True]
    assert {what for what, _, _ in steps} == {"fetching jars"}


def test_failed_build_can_be_tried_again(tmp_path: Path) -> None:
    """A build that fails leaves no entry and no lock behind, also while its error is still looked at."""
    cache = Cache(lambda _path: None, directory=tmp_path / "cache")

    def fail(place: Path) -> None:
        (place / "something").touch()
        raise KeyError

    with pytest.raises(KeyError) as raised:
        cache.entry("it", fail)
    assert raised.tb is not None
    assert entries(tmp_path) == []
    assert cache.entry("it", lambda place: (place / "something").touch()).is_dir()


def test_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A cache directory that cannot be made is a missing part that names it and the variable to set."""
    (tmp_path / "file").touch()
    cache = Cache(lambda _path: None, directory=tmp_path / "file" / "cache")

    with pytest.raises(MissingPart, match=r"file/cache\. .*ONECHARGE_CACHE"):
        cache.entry("it", lambda _place: None)


def test_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The cache is where ONECHARGE_CACHE says, else in the user's, or root's, own place."""
    monkeypatch.setenv("ONECHARGE_CACHE", str(tmp_path))
    assert directory() == tmp_path
    monkeypatch.delenv("ONECHARGE_CACHE")
    assert directory().name == "onecharge"
    assert directory().is_absolute()
