"""The process that starts, watches and ends all others, so that nothing outlives a test run, whoever was killed.

Run as a script by the supervisor: ``python keeper.py SOCKET JSON``. It connects to the supervisor's unix socket
(sequenced packets, one JSON object each), announces itself with ``{"event": "ready"}`` and then does as it is told:

======================================================== ==========================================================
request                                                  answer
======================================================== ==========================================================
``{"id", "op": "spawn", "argv" or "call", "env", "cwd",  ``{"id", "pid"}``, and when it ends, whenever that is,
"log", "user", "farewell"}``                             ``{"event": "exit", "pid", "status"}`` (negative: signal)
``{"id", "op": "signal", "pid", "signal"}``              ``{"id", "sent"}``: to the process group; false if it ended
``{"id", "op": "own", "path"}``                          ``{"id"}``: a file or directory to remove at the end
======================================================== ==========================================================

``argv`` is executed; ``call`` (``"module:function"``) is run in a fork of this very process. With ``preload`` in its
JSON the keeper has imported those modules beforehand, and is then what is called a zygote: a fork with everything
imported takes 3 ms, where a cold interpreter with the same imports takes 450 ms. Clients of databases and brokers
must be made after the fork, that is, in the function that is called.

How nothing is left behind
    Things that don't work: ``finally`` and ``atexit`` in the test process (SIGKILL runs neither); a process group
    (a SIGKILLed leader does not take it along); a parent-death signal alone (not inherited by grandchildren, and no
    one removes the directories).

    So this process stands between. It is a session of its own, so Ctrl-C at the terminal does not reach it. It ends
    when the supervisor's end of the socket closes or the supervisor's process dies, which the kernel reports however
    it died. Orphans of its children are handed to it (child subreaper), so it kills until it has no children left.
    Should it be killed itself, each direct child has its farewell (SIGKILL, where nothing else was asked for) as its
    parent-death signal. What remains then are directories, and a server that a drill had frozen; the next supervisor
    sweeps those that nobody holds a lock on.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import shutil
import signal
import socket
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

_FAREWELL_S = 1.0
PACKET = 1 << 17  # bytes; the default send buffer of a unix socket takes 200 KiB
_TOLD = PACKET // 8  # characters of an import's traceback; one may take six bytes as JSON

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IPC_RMID = 0
_libc = ctypes.CDLL(None, use_errno=True)


def main(socket_path: str, options: dict[str, Any]) -> None:
    """Serve the supervisor that listens at `socket_path` until it goes away; then end and remove everything."""
    owned = [Path(path) for path in options.get("own", [])]
    if "lock" in options:  # ours alone: what a killed keeper leaves behind must not hold the run directory's lock
        os.set_inheritable(options["lock"], False)
    try:
        keeper = Keeper(socket_path, supervisor=options["supervisor"], owned=owned)
    except OSError:  # the supervisor died before we met
        traceback.print_exc()
        _remove(owned)
        return
    try:
        ready = {"event": "ready", **_preload(options.get("preload", []), options.get("path", []))}
    except BaseException:  # noqa: BLE001 - whatever a module raises at import is the supervisor's to tell
        ready = {"event": "failed", "error": traceback.format_exc()[-_TOLD:]}
    keeper.send(ready)
    become = keeper.serve()
    if become is not None:  # this is the forked child: a clean stack, and an ordinary end of the interpreter
        become()


def _preload(modules: list[str], path: list[str]) -> dict[str, Any]:
    if path:
        sys.path[:] = path
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()  # keeps the collector of a forked worker from touching, and so copying, every page
    return {"pid": os.getpid(), "threads": _threads()}


def _threads() -> list[str]:
    """The threads that imports have started and that a forked worker would miss.

    Python's own, and those of Kafka clients: a producer made at import would wait for them for ever. Other native
    threads, such as the pools of numerical libraries, start anew in a fork by themselves.
    """
    python = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    native = [comm.read_text(encoding="utf-8").strip() for comm in Path("/proc/self/task").glob("*/comm")]
    return python + [f"a Kafka client's {name}" for name in native if name.startswith("rdk:")]


def _remove(owned: list[Path]) -> None:
    for path in owned:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _remove_segments(creators: set[int]) -> None:
    """Remove the System V shared memory of processes that did not live to do it (a SIGKILLed Postgres)."""
    table = Path("/proc/sysvipc/shm")
    for line in table.read_text(encoding="ascii").splitlines()[1:] if table.exists() else ():
        _key, segment, _mode, _size, creator, _last, attached, *_ = line.split()
        if int(creator) in creators and attached == "0":
            _libc.shmctl(int(segment), _IPC_RMID, None)


class Keeper:
    """One supervisor's connection and the children started for it."""

    def __init__(self, socket_path: str, *, supervisor: int, owned: list[Path]) -> None:
        _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._children: dict[int, int] = {}  # pid -> the signal that ends it when all ends
        self._patience: dict[int, float] = {}  # pid -> seconds that it is given for that
        self._tidy: set[int] = set()  # pids, also of the dead, that would have tidied up at their farewell
        self._owned = owned
        self._pid = os.getpid()
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.connect(socket_path)
        self._woken, wake = socket.socketpair()
        self._woken.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._supervisor = os.pidfd_open(supervisor)
        self._selector = selectors.DefaultSelector()
        for source in (self._control, self._woken, self._supervisor):
            self._selector.register(source, selectors.EVENT_READ)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the supervisor; silence if it is gone, which the main loop finds out by itself."""
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(message).encode())

    def serve(self) -> Callable[[], None] | None:
        """Do as told until the supervisor is gone. In a forked child, return what that child has to run."""
        while True:
            ready = {key.fileobj for key, _ in self._selector.select()}
            if self._woken in ready:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
                self._reap()
            if self._supervisor in ready:
                break
            if self._control in ready:
                packet = self._receive()
                if not packet:
                    break
                become = self._handle(json.loads(packet))
                if become is not None:
                    return become
        self._end()
        return None

    def _receive(self) -> bytes:
        try:
            return self._control.recv(PACKET)
        except ConnectionError:
            return b""

    def _handle(self, request: dict[str, Any]) -> Callable[[], None] | None:
        answer: dict[str, Any] = {"id": request["id"]}
        match request["op"]:
            case "spawn":
                for stream in (sys.stdout, sys.stderr):  # what an import has printed is not the worker's to repeat
                    stream.flush()
                pid = os.fork()
                if pid == 0:
                    return self._child(request)
                self._children[pid] = request.get("farewell", signal.SIGKILL)
                self._patience[pid] = request.get("patience", _FAREWELL_S)
                if self._children[pid] != signal.SIGKILL:
                    self._tidy.add(pid)
                answer["pid"] = pid
            case "signal":
                answer["sent"] = self._signal(request["pid"], request["signal"])
            case "own":
                self._owned.append(Path(request["path"]))
        self.send(answer)
        return None

    def _signal(self, pid: int, number: int) -> bool:
        # Only this process reaps its children, so a pid in the set is that child and no other process.
        self._reap()
        if pid not in self._children:
            return False
        try:
            os.killpg(pid, number)
        except ProcessLookupError:  # forked a moment ago and not yet the leader of its group
            os.kill(pid, number)
        return True

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid in self._children:  # else an orphan of a worker, handed to us
                    del self._children[pid]
                    self.send({"event": "exit", "pid": pid, "status": os.waitstatus_to_exitcode(status)})

    def _end(self) -> None:
        for pid, farewell in list(self._children.items()):
            self._signal(pid, farewell)
        self._let_go()
        _remove_segments(self._tidy)
        _remove(self._owned)

    def _let_go(self) -> None:
        """Wait a moment for those that were told to end by another signal, then kill until no child is left."""
        for source in (self._control, self._supervisor):
            self._selector.unregister(source)
        began = time.monotonic()
        while (left := self._patience_left() - (time.monotonic() - began)) > 0:
            self._selector.select(left)
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
            self._reap()
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children")
        with contextlib.suppress(ChildProcessError):
            while True:
                for pid in children.read_text(encoding="ascii").split():
                    os.kill(int(pid), signal.SIGKILL)
                os.waitpid(-1, 0)  # its orphans are ours now: look again

    def _patience_left(self) -> float:
        """The seconds that those have who are still there and were told to end by another signal."""
        others = [pid for pid, farewell in self._children.items() if farewell != signal.SIGKILL]
        return max((self._patience[pid] for pid in others), default=0.0)

    def _child(self, request: dict[str, Any]) -> Callable[[], None]:
        """Turn the fresh fork into the worker or server asked for, up to the point of running it."""
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._selector.close()
        os.close(self._supervisor)
        for end in (self._control, self._woken, self._wake):
            end.close()
        os.setsid()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for fd in (1, 2):
            os.dup2(log, fd)
        os.close(log)
        if request.get("user"):
            uid, gid = request["user"]
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        # After the change of user, which would clear it.
        _libc.prctl(_PR_SET_PDEATHSIG, request.get("farewell", signal.SIGKILL), 0, 0, 0)
        if os.getppid() != self._pid:
            os._exit(1)
        os.environ.clear()
        os.environ.update(request["env"])
        return lambda: _run(request)


def _run(request: dict[str, Any]) -> None:
    try:
        doing = f"enter the directory {request['cwd']}"
        os.chdir(request["cwd"])
        if "argv" in request:
            doing = f"run {request['argv'][0]}"
            for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python, and that would be inherited
                signal.signal(number, signal.SIG_DFL)
            os.execvp(request["argv"][0], request["argv"])  # noqa: S606 - the supervisor says what to run
    except OSError as error:
        os.write(2, f"cannot {doing}: {error.strerror}\n".encode())
        os._exit(127)
    sys.argv[:] = [request["call"]]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # a killed worker flushes nothing
    checkpoints = sys.modules.get("chaos.checkpoint")
    if checkpoints is not None:
        checkpoints.arm()
    module, _, function = request["call"].partition(":")
    target: Any = importlib.import_module(module)
    for part in function.split("."):
        target = getattr(target, part)
    target()


if __name__ == "__main__":
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    main(sys.argv[1], json.loads(sys.argv[2]))
