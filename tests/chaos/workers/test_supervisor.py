"""Nothing outlives a test run, whoever is killed; how each process ended is known."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from chaos.errors import ChaosError, ProcessDied
from chaos.waiting import Deadline
from chaos.workers import keeper as keeper_program
from chaos.workers import run_directory
from chaos.workers.supervisor import Supervisor
from tests.chaos.owner import Owner, is_alive, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SAMPLE = "tests.chaos.sample_workers"
CLEAN_S = 3.0

# Of everything that could be left behind: a plain child, one that is stopped, a grandchild that has left session and
# group and lost its parent, one that ignores what can be ignored, and forks of a zygote with children of their own.
FAMILY = """
with Supervisor(Path(os.environ["LOGS"])) as supervisor:
    supervisor.spawn("plain", ["sleep", "1000"])
    supervisor.spawn("stopped", ["sh", "-c", "sleep 1001 & kill -STOP $$"])
    supervisor.spawn("away", ["sh", "-c", "setsid sh -c 'sleep 1002 & sleep 1003 & wait' & exec sleep 1004"])
    supervisor.spawn("deaf", ["sh", "-c", "trap '' TERM INT HUP QUIT; sleep 1005; sleep 1006"])
    zygote = supervisor.zygote(["tests.chaos.sample_workers"])
    for name in ("first", "second"):
        zygote.fork(name, "tests.chaos.sample_workers:sleep", env=dict(os.environ), cwd=supervisor.run_dir)
    tell(run_dir=str(supervisor.run_dir), keeper=supervisor._keeper_process.pid)
    signal.pause()
"""
SLEEPERS = {"1000", "1001", "1002", "1003", "1004", "1005"}


@pytest.fixture
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary directory with a short name, for run directories."""
    return tmp_path_factory.mktemp("p")


@pytest.fixture
def family(place: Path) -> Iterator[Owner]:
    """An owner with all kinds of descendants."""
    with Owner(FAMILY, place, env={"TMPDIR": str(place)}) as owner:
        yield owner


def grown(owner: Owner) -> bool:
    """Whether all descendants are there: keeper, zygote, its two forks, every sleeper, and the one that is stopped."""
    family = psutil.Process(owner.process.pid).children(recursive=True)
    sleepers = {process.cmdline()[-1] for process in family if process.name() == "sleep"}
    keepers = sum("keeper.py" in " ".join(process.cmdline()) for process in family)
    stopped = any(process.status() == psutil.STATUS_STOPPED for process in family)
    return sleepers == SLEEPERS and keepers == 4 and stopped


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_owner_is_ended(family: Owner, number: signal.Signals) -> None:
    """However the owner is ended, no process and no run directory is left of it three seconds later."""
    run_dir = Path(family.told()["run_dir"])
    until(lambda: grown(family))

    family.end(number)

    assert len(family.descendants) >= 11
    until(lambda: not family.left(), CLEAN_S)
    assert not run_dir.exists()


def test_owner_is_killed_while_its_keeper_starts(place: Path) -> None:
    """An owner that dies before it has met its keeper leaves nothing either: the keeper removes the directory."""
    with Owner(FAMILY, place, env={"TMPDIR": str(place)}) as owner:
        until(lambda: psutil.Process(owner.process.pid).children())
        assert list(place.glob("onecharge-*"))

        owner.end(signal.SIGKILL)

        until(lambda: not owner.left(), CLEAN_S)
        assert not list(place.glob("onecharge-*"))


def test_keeper_is_killed(family: Owner, monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    """The keeper's death ends what it started; what nobody is left to end or remove goes with the next sweep."""
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)  # it keeps what it has found first
    told = family.told()
    until(lambda: grown(family))
    run_dir = Path(told["run_dir"])
    keeper = psutil.Process(told["keeper"])
    [zygote] = (child for child in keeper.children() if "keeper.py" in " ".join(child.cmdline()))
    direct = [*keeper.children(), *zygote.children()]
    assert len(direct) == 7
    assert len(keeper.children(recursive=True)) > len(direct)

    run_directory.sweep()
    assert run_dir.exists(), "a run that is alive must not be swept"
    family.descendants |= {keeper, *keeper.children(recursive=True)}
    keeper.kill()
    until(lambda: not any(is_alive(process) for process in direct), CLEAN_S)
    family.end(signal.SIGKILL)
    assert run_dir.exists()
    run_directory.sweep()  # grandchildren are beyond a parent-death signal
    until(lambda: not family.left(), CLEAN_S)
    assert not run_dir.exists()


def test_leaving_ends_everything(tmp_path: Path) -> None:
    """Leaving a supervisor ends its processes and removes its directory and what it was told to own."""
    owned = tmp_path / "owned"
    (owned / "inside").mkdir(parents=True)
    with Supervisor(tmp_path / "logs") as supervisor:
        sleeping = supervisor.spawn("sleeping", ["sleep", "1000"])
        supervisor.own(owned)
        process, run_dir = psutil.Process(sleeping.pid), supervisor.run_dir
        assert is_alive(process)

    assert not is_alive(process)
    assert not run_dir.exists()
    assert not owned.exists()


def test_shared_memory_of_a_killed_process(tmp_path: Path) -> None:
    """A System V segment is removed if its maker, who would have tidied up at its farewell, was killed instead."""
    make = "import ctypes, signal; print(ctypes.CDLL(None).shmget(0, 100, 0o600), flush=True); signal.pause()"
    with Supervisor(tmp_path / "logs") as supervisor:
        maker = supervisor.spawn("maker", [sys.executable, "-c", make], farewell=signal.SIGQUIT)
        segment = until(lambda: maker.log.exists() and maker.log.read_text().strip())
        maker.kill()
        assert segment in segments()

    assert segment not in segments()


def segments() -> set[str]:
    """The System V shared memory segments of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]}


@pytest.mark.parametrize(
    ("argv", "said", "log"),
    [
        (["sh", "-c", "exit 0"], "exited with code 0", ""),
        (["sh", "-c", "echo out; echo err >&2; exit 3"], "exited with code 3", "out\nerr\n"),
        (["sh", "-c", "kill -SEGV $$"], "was ended by SIGSEGV", ""),
        (["sh", "-c", "kill -40 $$"], "was ended by signal 40", ""),
        (["no-such-program", "x"], "exited with code 127", "cannot run no-such-program: No such file or directory\n"),
        (["/dev/null"], "exited with code 127", "cannot run /dev/null: Permission denied\n"),
    ],
    ids=["zero", "three", "signal", "real-time signal", "missing", "not executable"],
)
def test_exit(supervisor: Supervisor, argv: list[str], said: str, log: str) -> None:
    """How a process ended is known, and its output is in its log."""
    process = supervisor.spawn("it", argv)

    assert said == str(process.wait(Deadline(10)))
    assert log == process.log.read_text()
    with pytest.raises(ProcessDied, match=f"^it {said}"):
        process.require_running()


def test_missing_directory(supervisor: Supervisor, tmp_path: Path) -> None:
    """A program whose directory is missing ends with 127 and says so."""
    process = supervisor.spawn("it", ["true"], cwd=tmp_path / "nowhere")

    assert process.wait(Deadline(10)).status == 127
    assert f"cannot enter the directory {tmp_path / 'nowhere'}: No such file or directory\n" == process.log.read_text()


def test_signals_are_as_in_a_shell(supervisor: Supervisor) -> None:
    """A program is started with no signal ignored that Python ignores for itself."""
    process = supervisor.spawn("it", ["grep", "SigIgn", "/proc/self/status"])

    process.wait(Deadline(10))
    ignored = int(process.log.read_text().split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


def test_signal_reaches_one_group(supervisor: Supervisor) -> None:
    """A signal goes to all of a worker's process group and to nobody else's."""
    first, second = (supervisor.spawn(name, ["sh", "-c", "sleep 1000; true"]) for name in ("first", "second"))
    [child], [other] = (until(psutil.Process(worker.pid).children) for worker in (first, second))

    assert first.signal(signal.SIGTERM)

    assert str(first.wait(Deadline(10))) == "was ended by SIGTERM"
    until(lambda: not is_alive(child))
    assert is_alive(other)
    assert second.exit is None


def test_signal_after_the_end(supervisor: Supervisor) -> None:
    """To signal a process that ended says no, also when its pid was given to another process since."""
    process = supervisor.spawn("it", ["true"])
    process.wait(Deadline(10))
    with subprocess.Popen(["/bin/sleep", "1000"], start_new_session=True) as stranger:
        process.pid = stranger.pid  # as if it had been given to somebody who is no child of the keeper

        assert not process.signal(signal.SIGTERM)
        assert str(process.kill()) == "exited with code 0"
        assert stranger.poll() is None
        stranger.kill()
        assert stranger.wait() == -signal.SIGKILL


def test_stop(supervisor: Supervisor) -> None:
    """A process asked to stop may end by itself; one that does not is killed at the deadline."""
    willing = supervisor.spawn("willing", ["sleep", "1000"])
    deaf = supervisor.spawn("deaf", ["sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1000; done"])
    until(lambda: deaf.log.exists() and deaf.log.read_text())

    assert str(willing.stop(Deadline(10))) == "was ended by SIGTERM"
    assert str(deaf.stop(Deadline(0.1))) == "was ended by SIGKILL"


def test_forked_worker(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked worker has a log of its own, its own argv, and repeats nothing that its imports have printed."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    fork = supervisor.zygote([SAMPLE]).fork("speaker", f"{SAMPLE}:speak", env=dict(os.environ), cwd=supervisor.run_dir)

    assert fork.wait(Deadline(10)).status == 0
    assert f"I speak ['{SAMPLE}:speak']\n" == fork.log.read_text()
    assert (supervisor.logs / "zygote.log").read_text() == "printed at import\n"


@pytest.mark.parametrize(
    ("number", "said", "words"),
    [(signal.SIGTERM, "exited with code 3", "ready\nfarewell\n"), (signal.SIGKILL, "was ended by SIGKILL", "ready\n")],
    ids=["SIGTERM", "SIGKILL"],
)
def test_end_of_a_fork(supervisor: Supervisor, number: int, said: str, words: str) -> None:
    """A fork that ends normally ends like any interpreter, with its atexit; one that is killed runs nothing more."""
    zygote = supervisor.zygote([SAMPLE])
    fork = zygote.fork("polite", f"{SAMPLE}:say_farewell", env=dict(os.environ), cwd=supervisor.run_dir)
    until(lambda: fork.log.exists() and "ready" in fork.log.read_text())

    fork.signal(number)

    assert said == str(fork.wait(Deadline(10)))
    assert words == fork.log.read_text()


@pytest.mark.parametrize(
    ("source", "error", "told"),
    [
        ("import no_such_module", ChaosError, 'faulty_worker.py", line 1, in <module>\n    import no_such_module'),
        ("raise SystemExit(4)", ChaosError, "SystemExit: 4"),
        ("import os; os._exit(5)", ProcessDied, "the zygote exited with code 5"),
        (
            "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True, name='mine').start()",
            ChaosError,
            "started threads (mine)",
        ),
        (
            "import confluent_kafka\np = confluent_kafka.Producer({'log_level': 0})",
            ChaosError,
            "a Kafka client's rdk:main",
        ),
    ],
    ids=["import error", "exit", "sudden end", "thread", "kafka client"],
)
def test_zygote_refuses(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, source: str, error: type[Exception], told: str
) -> None:
    """A worker's module that cannot be imported, or starts threads when it is, is refused, and the reason is told."""
    (supervisor.logs / "faulty_worker.py").write_text(source)
    monkeypatch.syspath_prepend(supervisor.logs)

    with pytest.raises(error) as raised:
        supervisor.zygote(["faulty_worker"])

    assert told in str(raised.value)
    [process] = supervisor.processes
    process.wait(Deadline(10))


def test_dead_zygote_is_named(supervisor: Supervisor) -> None:
    """A zygote that was killed takes its workers along, and who wants another worker of it is told."""
    zygote = supervisor.zygote([SAMPLE])
    fork = zygote.fork("sleeper", f"{SAMPLE}:sleep", env=dict(os.environ), cwd=supervisor.run_dir)

    supervisor.processes[0].kill()

    assert str(fork.wait(Deadline(10))) == "was ended by SIGKILL"
    until(lambda: not psutil.pid_exists(fork.pid))
    with pytest.raises(ProcessDied, match="the zygote is gone"):
        zygote.fork("late", f"{SAMPLE}:sleep", env={}, cwd=supervisor.run_dir)


def test_too_much_environment(supervisor: Supervisor) -> None:
    """More environment than a request has room for is refused in words, and the supervisor goes on."""
    with pytest.raises(ChaosError, match="is too long: there is room for"):
        supervisor.spawn("it", ["true"], env={"MUCH": "x" * keeper_program.PACKET})

    assert supervisor.spawn("it", ["true"], env={"MUCH": "x" * 100_000}).wait(Deadline(10)).status == 0


def test_keeper_death_is_told(tmp_path: Path) -> None:
    """Without its keeper a supervisor knows all its processes as ended, and says whom it lost."""
    with Supervisor(tmp_path / "logs") as supervisor:
        sleeping = supervisor.spawn("sleeping", ["sleep", "1000"])
        supervisor._keeper_process.kill()

        assert str(sleeping.wait(Deadline(10))) == "was ended by SIGKILL"
        with pytest.raises(ProcessDied, match="the keeper is gone"):
            supervisor.spawn("late", ["true"])
        run_dir = supervisor.run_dir
    assert not run_dir.exists()


@pytest.mark.parametrize(("length", "taken"), [(71, True), (72, False), (200, False)])
def test_long_temporary_directory(place: Path, monkeypatch: pytest.MonkeyPatch, length: int, taken: bool) -> None:  # noqa: FBT001
    """A TMPDIR is used up to the length that leaves room for a socket's address, and passed over beyond that."""
    long = place / ("l" * (length - len(str(place)) - 1))
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)

    with Supervisor(place / "logs") as supervisor:
        assert supervisor.spawn("it", ["true"]).wait(Deadline(10)).status == 0
        assert supervisor.run_dir.is_relative_to(long) == taken


def test_sweep_is_careful(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep takes a directory that nobody has locked, leaves one that is only just being made, and nobody else's."""
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr("tempfile.tempdir", None)
    abandoned, in_making, aged = (place / f"onecharge-run-{name}" for name in ("abandoned", "in-making", "aged"))
    held, lock = run_directory.make()
    for directory in (abandoned, in_making, aged):
        directory.mkdir()
    (abandoned / "lock").touch()
    (place / "onecharge-notes").mkdir()
    os.utime(place / "onecharge-notes", (1, 1))
    os.utime(aged, (1, 1))

    run_directory.sweep()

    assert {found.name for found in place.iterdir()} == {in_making.name, held.name, "onecharge-notes"}
    os.close(lock)
    shutil.rmtree(held)
