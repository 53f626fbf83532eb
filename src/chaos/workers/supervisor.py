"""The test process's side: start processes, know how each one ended, hear them arrive at checkpoints.

One `Supervisor` owns a run directory (`chaos.workers.run_directory`), a directory of logs, and a keeper
(`chaos.workers.keeper`) that does the starting and, whoever is killed, the cleaning up. A `Zygote` is a second keeper
with a worker's modules imported, from which workers are forked.

Everything that arrives from outside (exits, answers, checkpoint arrivals) is taken in by one thread, the hub. It
changes the tables under one condition variable and never waits for anything; whoever needs something waits on that
condition, so nothing here is polled.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaos.checkpoint import SOCKET_VARIABLE, WORKER_VARIABLE
from chaos.errors import ChaosError, ProcessDied
from chaos.waiting import Deadline, wait_until
from chaos.workers import keeper as keeper_program
from chaos.workers import proc, run_directory
from chaos.workers.arrivals import Arrivals
from chaos.workers.process import ANSWER_S, Exit, Process

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Self

_DEATH_S = 5.0
_GREETING_S = 60.0


class Child(Process):
    """A process that a keeper has started, and leads a group of processes."""

    def __init__(self, supervisor: Supervisor, keeper: _Keeper, name: str, log: Path) -> None:
        super().__init__(supervisor, name, log)
        self._keeper = keeper

    def signal(self, number: int) -> bool:
        """Send a signal to its process group; False if the process had ended before."""
        sent: bool = self._supervisor.ask(self._keeper, op="signal", pid=self.pid, signal=number)["sent"]
        return sent

    def freeze(self) -> list[int]:
        """See `Process`."""
        return proc.freeze(self.pid)

    def thaw(self) -> None:
        """See `Process`."""
        for pid in reversed(proc.family(self.pid)):
            proc.send(pid, signal.SIGCONT)

    def destroy(self) -> None:
        """See `Process`. They are stopped first: a Postgres that has lost its first alone serves for a moment."""
        family = self.freeze()
        for pid in family:
            proc.send(pid, signal.SIGKILL)
        self.wait(Deadline(_DEATH_S))
        proc.require_gone(family, self.name, Deadline(_DEATH_S))

    def forget(self) -> None:
        """See `Process`: nothing."""


class _Keeper:
    """A keeper process seen from here: a socket, and the processes it was asked to start."""

    def __init__(self, name: str, log: Path, connection: socket.socket) -> None:
        self.name, self.log, self.connection = name, log, connection
        self.processes: dict[int, Process] = {}
        self.early_exits: dict[int, Exit] = {}
        self.gone = False


class Zygote:
    """A warm parent: a keeper with modules imported, whose workers are forks of it."""

    def __init__(self, supervisor: Supervisor, keeper: _Keeper) -> None:
        self._supervisor, self._keeper = supervisor, keeper

    def fork(self, name: str, call: str, *, env: dict[str, str], cwd: Path) -> Process:
        """Run ``module:function`` in a fork."""
        return self._supervisor.start(self._keeper, name, {"call": call, "env": env, "cwd": str(cwd)})


class Supervisor:
    """Starts processes and answers for them. Use it as a context manager; leaving it ends them all.

    `listeners` has a function for each lane that is called in the hub's thread for each arrival at a checkpoint; see
    `chaos.workers.arrivals`. It must not wait.
    """

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.processes: list[Process] = []
        self.listeners: dict[str, Callable[[str, str, int], bool]] = {}
        self._changed = threading.Condition()
        self._answers: dict[int, dict[str, Any] | None] = {}
        self._request = 0
        self._failure: BaseException | None = None
        self._selector = selectors.DefaultSelector()
        self._closing = False
        self._zygotes: dict[tuple[str, ...], Zygote] = {}
        self._greeting = threading.Lock()
        self._sockets = contextlib.ExitStack()  # those that this thread closes, when the hub has ended

    def __enter__(self) -> Self:
        run_directory.sweep()
        self.logs.mkdir(parents=True, exist_ok=True)
        self.run_dir, lock = run_directory.make()
        try:
            self._listen()
            argv = self._keeper_argv({"own": [str(self.run_dir)], "lock": lock})
            with (self.logs / "keeper.log").open("ab") as log:
                self._keeper_process = subprocess.Popen(
                    argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=[lock]
                )
            self._root = self._greet("keeper", self._keeper_exit)
        except BaseException:
            self._sockets.close()  # a keeper takes that as its order to end
            shutil.rmtree(self.run_dir, ignore_errors=True)
            raise
        finally:
            os.close(lock)
        self._hub = threading.Thread(target=self._run_hub, name="onecharge-hub", daemon=True)
        self._hub.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._closing = True
        deadline = Deadline(ANSWER_S)
        # The keeper takes the end of this connection as its order to end everything, and ends last.
        with contextlib.suppress(OSError):  # a hub that failed has closed it
            self._root.connection.shutdown(socket.SHUT_RDWR)
        try:
            self._keeper_process.wait(deadline.left)
        except subprocess.TimeoutExpired:
            self._keeper_process.kill()  # takes its children along
            raise deadline.missed("the keeper to end", "running", [self._root.log]) from None
        finally:
            self._wake.close()
            self._hub.join(ANSWER_S)
            self._sockets.close()
            if self._keeper_process.returncode != 0:
                run_directory.end_strays(self.run_dir)
            shutil.rmtree(self.run_dir, ignore_errors=True)

    def own(self, path: Path) -> None:
        """Have the file or directory removed at the end, however this process ends."""
        self.ask(self._root, op="own", path=str(path))

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        farewell: int = signal.SIGKILL,
        patience: float = 1.0,
    ) -> Process:
        """Start a program, as (uid, gid) `user` if given.

        `farewell` is the signal that ends it when all ends; it is given so many seconds of `patience` for that.
        """
        environment = dict(os.environ) if env is None else env
        what = {"argv": list(argv), "env": environment, "cwd": str(cwd or self.run_dir)}
        return self.start(self._root, name, {**what, "user": user, "farewell": farewell, "patience": patience})

    def zygote(self, preload: Sequence[str]) -> Zygote:
        """The warm parent that has imported the modules `preload`; made at the first call, then kept."""
        key = tuple(sorted(preload))
        with self._greeting:
            if key not in self._zygotes:
                options = {"preload": key, "path": [str(Path(entry or ".").resolve()) for entry in sys.path]}
                # Environment and directory of this process, so that the imports find what they would find here.
                process = self.spawn("zygote", self._keeper_argv(options), cwd=Path.cwd())
                self._zygotes[key] = Zygote(self, self._greet("zygote", lambda: process.exit))
            return self._zygotes[key]

    def checkpoint_environment(self, worker: str) -> dict[str, str]:
        """What a process needs in its environment for its checkpoints to be heard as those of `worker`."""
        return {SOCKET_VARIABLE: str(self.run_dir / "checkpoints"), WORKER_VARIABLE: worker}

    def wait_for(self, condition: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until `condition`, which must look only at what the hub changes; False when it did not come in time."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self._failure is not None, deadline.left)
            if self._failure is not None:
                msg = "the supervisor's hub stopped"
                raise ChaosError(msg) from self._failure
            return condition()

    @contextlib.contextmanager
    def changing(self, *, quietly: bool = False) -> Any:
        """Hold the lock under which the tables are changed, and wake up who waits on them, unless `quietly`."""
        with self._changed:
            yield
            if not quietly:
                self._changed.notify_all()

    def hear(self, connection: socket.socket, take_in: Callable[[bytes], None]) -> None:
        """Have the hub read `connection` from now on: what comes is given to `take_in`, at last an empty piece."""

        def ready() -> None:
            try:
                data = connection.recv(1 << 16)
            except ConnectionError:
                data = b""
            if not data:
                self._selector.unregister(connection)
                connection.close()
            take_in(data)

        self._selector.register(connection, selectors.EVENT_READ, ready)

    # -- what the processes above use ----------------------------------------------------------------------------

    def start(self, keeper: _Keeper, name: str, what: dict[str, Any]) -> Process:
        """Have `keeper` start `what` and return its handle."""
        process = Child(self, keeper, name, self.logs / f"{name}.log")
        what["env"] = {**what["env"], run_directory.VARIABLE: str(self.run_dir)}
        pid = self.ask(keeper, op="spawn", log=str(process.log), **what)["pid"]
        with self.changing():
            process.pid = pid
            keeper.processes[pid] = process
            process.exit = keeper.early_exits.pop(pid, None)
            self.processes.append(process)
        return process

    def ask(self, keeper: _Keeper, **request: Any) -> dict[str, Any]:
        """Send a request to a keeper and return its answer."""
        with self._changed:
            self._request += 1
            number = self._request
        packet = json.dumps({"id": number, **request}).encode()
        if len(packet) > keeper_program.PACKET:
            what = "command line and environment" if request["op"] == "spawn" else "request"
            msg = f"a {what} of {len(packet)} bytes is too long: there is room for {keeper_program.PACKET}"
            raise ChaosError(msg)
        with self._changed:
            self._answers[number] = None
        with contextlib.suppress(OSError):  # a keeper that is gone is said below
            keeper.connection.send(packet)
        deadline = Deadline(ANSWER_S)
        self.wait_for(lambda: self._answers[number] is not None or keeper.gone, deadline)
        with self._changed:
            answer = self._answers.pop(number)
        if answer is None:
            if keeper.gone:
                raise ProcessDied(f"the {keeper.name}", how=None, log=keeper.log)
            raise deadline.missed(f"the {keeper.name} to answer {request['op']!r}", "silence", [keeper.log])
        return answer

    # -- starting keepers ----------------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._keepers = self._sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        self._keepers.bind(str(self.run_dir / "keepers"))
        self._keepers.listen()
        self._checkpoints = self._sockets.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        self._checkpoints.bind(str(self.run_dir / "checkpoints"))
        (self.run_dir / "checkpoints").chmod(0o666)  # a worker may run as another user
        self._checkpoints.listen(128)
        woken, self._wake = (self._sockets.enter_context(end) for end in socket.socketpair())
        self._selector.register(woken, selectors.EVENT_READ, self._stop_hub)
        self._selector.register(self._checkpoints, selectors.EVENT_READ, self._accept_worker)

    def _keeper_argv(self, options: dict[str, Any]) -> list[str]:
        program = str(Path(keeper_program.__file__).resolve())
        json_options = json.dumps({"supervisor": os.getpid(), **options})
        # -P: the directory of a script is no place to import from; its neighbours are not top-level modules.
        return [sys.executable, "-P", program, str(self.run_dir / "keepers"), json_options]

    def _keeper_exit(self) -> Exit | None:
        status = self._keeper_process.poll()
        return None if status is None else Exit(status)

    def _greet(self, name: str, ended: Callable[[], Exit | None]) -> _Keeper:
        """Wait until a keeper that was started is there and has imported what it was given."""
        deadline, log = Deadline(_GREETING_S), self.logs / f"{name}.log"
        connection = self._sockets.enter_context(self._accept_keeper(name, ended, deadline))
        connection.settimeout(deadline.left)
        try:
            hello = json.loads(connection.recv(keeper_program.PACKET) or b"{}")
            connection.settimeout(None)
            self._check(name, hello, ended)
        except BaseException as error:
            connection.close()  # its order to end
            if isinstance(error, TimeoutError) and not isinstance(error, ChaosError):
                raise deadline.missed(f"the {name} to import what it was given", "importing", [log]) from None
            raise
        keeper = _Keeper(name, log, connection)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(keeper))
        return keeper

    def _accept_keeper(self, name: str, ended: Callable[[], Exit | None], deadline: Deadline) -> socket.socket:
        log = self.logs / f"{name}.log"
        self._keepers.settimeout(0.05)
        while True:
            with contextlib.suppress(TimeoutError):
                return self._keepers.accept()[0]
            if ended() is not None:
                raise ProcessDied(f"the {name}", how=ended(), log=log)
            if deadline.passed:
                raise deadline.missed(f"the {name} to connect", "nothing", [log])

    def _check(self, name: str, hello: dict[str, Any], ended: Callable[[], Exit | None]) -> None:
        if not hello:  # an import has ended the process
            how = wait_until(f"the {name} to end", ended, Deadline(ANSWER_S))
            raise ProcessDied(f"the {name}", how=how, log=self.logs / f"{name}.log")
        if hello["event"] == "failed":
            msg = f"the {name} could not import what it was given:\n{hello['error']}"
            raise ChaosError(msg)
        if hello["threads"]:
            msg = (
                f"importing a worker's module started threads ({', '.join(hello['threads'])}). They would not exist in "
                "the forked workers: start them, and make clients, inside the worker's function."
            )
            raise ChaosError(msg)

    # -- the hub ---------------------------------------------------------------------------------------------------

    def _run_hub(self) -> None:
        try:
            while not (self._closing and self._root.gone):
                for key, _ in self._selector.select():
                    key.data()
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits
            with self.changing():
                self._failure = error
        finally:
            for key in list(self._selector.get_map().values()):
                key.fileobj.close()  # type: ignore[union-attr]
            self._selector.close()

    def _stop_hub(self) -> None:
        raise SystemExit

    def _hear(self, keeper: _Keeper) -> None:
        try:
            packet = keeper.connection.recv(keeper_program.PACKET)
        except ConnectionError:
            packet = b""
        with self.changing():
            if not packet:
                keeper.gone = True
                self._selector.unregister(keeper.connection)
                for process in keeper.processes.values():
                    process.exit = process.exit or Exit(-signal.SIGKILL)
                return
            message = json.loads(packet)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                ended = Exit(message["status"])
                known = keeper.processes.pop(message["pid"], None)
                if known is None:  # it ended before `start` knew its pid
                    keeper.early_exits[message["pid"]] = ended
                else:
                    known.exit = ended

    def _accept_worker(self) -> None:
        connection, _ = self._checkpoints.accept()
        arrivals = Arrivals(connection, self.listeners)

        def hear() -> None:
            if not arrivals.hear():
                self._selector.unregister(connection)
                connection.close()

        self._selector.register(connection, selectors.EVENT_READ, hear)
