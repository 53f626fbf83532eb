"""One drill: a workload under a schedule, until nothing is left to do; then the verdict.

The steps are those of every drill: *arm* the schedule; run the *workload*; *break* each worker at its point and
*recover* it; wait until the system has *settled*; *judge* by the ledger.

A verdict is ``holds``, ``violated`` or ``unknown``, and unknown is never taken for a success: no fault fired, nothing
was accepted, the system did not settle, a worker ended by itself, a check raised. Each says so in `Verdict.reasons`. A
fault whose point never came because an earlier one had changed the course of things is in `Verdict.not_reached`, and
the drill is judged as the shorter schedule that it was.
"""

from __future__ import annotations

import abc
import http.client
import itertools
import json
import re
import time
import urllib.parse
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from chaos import history
from chaos.errors import ChaosError, Undecided, Violated
from chaos.waiting import Deadline, wait_until
from chaos.wire.messages import Name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from chaos.armed import Armed, Fired
    from chaos.errors import Told
    from chaos.invariants import Ledger, Record, Violation
    from chaos.lane import Lane
    from chaos.schedule import Fault, Schedule
    from chaos.system import System

T = TypeVar("T")

_CALL_S = 5.0
_LOOK_S = 0.01
_LATE_S = 0.1
_ALIAS = re.compile(r"[\w.-]+")
_ID_LENGTH = 16  # shorter texts in a reply are words, not keys
_CLIENT_ERROR, _SERVER_ERROR = 400, 500


class Result(abc.ABC):
    """What a drill, a sweep or an exploration has shown."""

    error: BaseException | None = None

    @property
    @abc.abstractmethod
    def status(self) -> str:
        """``holds``, ``violated`` or ``unknown``."""

    def require_holds(self) -> None:
        """Return if it holds.

        Raises:
            Violated: an invariant was broken.
            Undecided: it proves less than it should.
        """
        if self.status != "holds":
            raise (Violated if self.status == "violated" else Undecided)(cast("Told", self)) from self.error


@dataclass
class Verdict(Result):
    """What a drill showed. `schedule` as text is what to replay; `history` is all that happened, in order.

    `unfit` says of faults that they could never be done where they were asked for, such as the loss of a reply that
    nobody sends: the verdict is unknown then, and a sweep counts that as no schedule at all.
    """

    schedule: Schedule
    ledgers: tuple[Ledger, ...]
    keys: tuple[str, ...] = ()
    fired: list[Fired] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    not_reached: list[Fault] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    history: list[history.Event] = field(default_factory=list)
    logs: tuple[Path, ...] = ()
    seconds: float = 0.0
    error: BaseException | None = None  # what ended the run early, with its traceback

    @property
    def status(self) -> str:
        """``holds``, ``violated`` or ``unknown``."""
        if self.violations:
            return "violated"
        return "unknown" if self.reasons else "holds"

    @property
    def events(self) -> list[str]:
        """The history in words, with the seconds since it began."""
        return [f"{event.at - self.history[0].at:8.3f} {event}" for event in self.history]

    def records(self, key: str) -> list[Record]:
        """Everything the ledgers say about a key."""
        return [record for ledger in self.ledgers for record in ledger.of(key)]

    def requests(self, key: str) -> int:
        """How often an effect was asked for on behalf of a key."""
        return len(self.records(key))

    def effects(self, key: str) -> int:
        """How often it had one."""
        return sum(record.effect for record in self.records(key))

    def story(self, *, events: bool = False) -> str:
        """What was broken, why the verdict is what it is, the ledger lines it was judged by; on demand, all events."""
        lines = [f"{self.status}: {str(self.schedule) or 'no fault'}"]
        lines += [f"  fired     {fired}" for fired in self.fired]
        lines += [f"  missed    {fault}: not reached, the course of things was another" for fault in self.not_reached]
        lines += [f"  violated  {violation}" for violation in self.violations]
        lines += [f"  unknown   {reason}" for reason in self.reasons]
        for key in self.keys:
            try:
                records = self.records(key)
            except ChaosError as error:  # the verdict says so; its story has to be told all the same
                lines.append(f"  {key}: {error}")
                continue
            effects = sum(record.effect for record in records)
            lines.append(f"  {key}: {_count(len(records), 'request')}, {_count(effects, 'effect')}")
            lines += [f"    {record}" for record in records]
        if events:
            lines += ["  events", *(f"    {event}" for event in self.events)]
            lines += [f"  log       {log}" for log in self.logs]
        return "\n".join(lines)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


class Run:
    """What a workload does its work with: HTTP calls to the system, statements to its database, keys to answer for.

    Keys are what makes the names of points stable: ``[key-2]`` is what is about the second key that the workload
    told of. Tell of a key before the system can know it, by `new_key` or `name`; `post` does so by itself.
    """

    def __init__(self, system: System, armed: Armed, deadline: Deadline) -> None:
        self.lane: Lane = system.lane
        self.keys: list[str] = []
        self._system, self._armed, self._deadline = system, armed, deadline
        self._aliases: dict[str, str] = {}

    @property
    def history(self) -> list[history.Event]:
        """What has happened so far, as the harness was told of it. A workload may wait for what it needs."""
        return [*self._armed.history]

    def new_key(self) -> str:
        """A key that nobody has used: text of fixed width."""
        key = uuid.uuid4().hex
        self.name(key)
        return key

    def name(self, key: str, alias: str = "") -> str:
        """Have points that are about `key` named by its alias: ``key-1``, ``key-2`` and so on, unless you say one.

        `key` should be unique and of fixed width: ``order-1`` is found inside ``order-10``. Keys may share an alias.
        """
        if alias and not _ALIAS.fullmatch(alias):
            raise ChaosError(f"{alias!r} is no alias: expected letters, digits, dots, dashes and underscores")
        if key not in self._aliases:
            taken = set(self._aliases.values())
            given = alias or next(new for n in itertools.count(len(taken) + 1) if (new := f"key-{n}") not in taken)
            self._aliases[key] = given
            self.lane.links.wire.do(lambda number: Name(number, key, given))
            self._armed.history.append(history.Named(time.time(), key, given))
        return self._aliases[key]

    def accept(self, key: object) -> None:
        """Say that the system has accepted `key` and must answer for it from now on. As text, it is a ledger's key."""
        self.name(str(key))
        self.keys.append(str(key))
        self._armed.history.append(history.Accepted(time.time(), str(key)))

    def execute(self, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Run a statement in the lane's database, committed at once, and return its rows."""
        return self.lane.execute(statement, parameters)

    def produce(self, topic: str, value: bytes, *, key: bytes | None = None) -> None:
        """Put a message on the lane's topic with that short name, and return when the broker has it.

        Raises:
            ChaosError: the broker has not taken it.
        """
        self.lane.produce(topic, value, key)

    def post(self, path: str, body: Any, *, idempotency_key: str | None = None) -> Any:
        """POST JSON to the system's HTTP worker and return the reply's JSON.

        Like a customer who wants an answer, this asks again with the same Idempotency-Key while the worker is away or
        says 5xx, until the drill's deadline. The Idempotency-Key is a key with an alias (that of the one key in the
        body, if there is one there), and texts in the reply share that alias.

        Raises:
            ChaosError: it answered 4xx.
            NotInTime: no good answer came.
        """
        url = urllib.parse.urlsplit(self._system.url)
        content = json.dumps(body)
        idempotency_key = idempotency_key or uuid.uuid4().hex
        inside = {alias for key, alias in self._aliases.items() if key in content}
        alias = self.name(idempotency_key, inside.pop() if len(inside) == 1 else "")
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key}

        def ask() -> tuple[int, bytes]:
            self._system.crew.require_healthy()
            connection = http.client.HTTPConnection(url.netloc, timeout=min(_CALL_S, self._deadline.left + 0.1))
            try:
                connection.request("POST", path, content.encode(), headers)
                reply = connection.getresponse()
                return reply.status, reply.read()
            finally:
                connection.close()

        asked_again_on = (OSError, http.client.HTTPException)
        status, answer = wait_until(
            f"{url.netloc}{path} to answer",
            ask,
            self._deadline,
            accept=lambda got: got[0] < _SERVER_ERROR,
            retry_on=asked_again_on,
        )
        if status >= _CLIENT_ERROR:
            msg = f"POST {path} of {body} was answered {status}: {answer.decode(errors='replace')}"
            raise ChaosError(msg)
        said = json.loads(answer)
        for value in said.values() if isinstance(said, dict) else ():
            if isinstance(value, str) and len(value) >= _ID_LENGTH:
                self.name(value, alias)
        return said


def run_drill(system: System, schedule: Schedule) -> Verdict:
    """Carry out one drill on a running system; see the module's docstring."""
    verdict = Verdict(schedule, system.ledgers)
    deadline = Deadline(system.within)
    settled = False
    with system.crew.armed(schedule, system.certain) as armed:
        run = Run(system, armed, deadline)
        try:
            system.workload(run)
            settled = _settle(system, run.keys, armed, deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run proves nothing, and says so
            verdict.error = error
            verdict.reasons.append(f"{type(error).__name__}: {error}")
    verdict.keys, verdict.seconds = tuple(run.keys), time.time() - armed.history[0].at
    verdict.fired, verdict.not_reached, verdict.unfit = armed.fired, armed.not_reached, armed.unfit
    verdict.history = sorted(armed.history, key=lambda event: event.at)  # the wire tells of it a moment later
    verdict.logs = system.crew.logs
    if armed.failure is not verdict.error or armed.failure is None:
        verdict.reasons += armed.reasons()
    _judge_finally(system, verdict, settled=settled)
    return verdict


def _settle(system: System, keys: Sequence[str], armed: Armed, deadline: Deadline) -> bool:
    """Wait until nothing is left to do; True, or an exception that says what was.

    It ends at once when the goal is reached: every fault fired, nothing in flight, no violation, conditions met.
    Otherwise, and only then, it waits out the grace, for an effect that may still come from where no condition sees
    it; the grace begins anew with each condition that is no longer met, each fault, recovery, and effect about a key. A
    fault that would be a later one is given less, since what was reached without it is judged all the same. What may
    end it is looked at whenever something has happened on the wire, and now and then for what happens elsewhere.
    """
    looked, quiet, moves = Deadline(0), 0.0, -1
    while True:
        system.crew.require_healthy()
        fine = not armed.busy and _no_violation(system, keys, armed)
        reached = fine and armed.done
        if reached or looked.passed:
            moved = armed.moves
            outstanding = _outstanding(system, armed)
            looked = Deadline(_LOOK_S)
            if outstanding or moves != moved or not quiet:
                quiet, moves = 0.0 if outstanding else time.monotonic(), moved
            patience = 0.0 if reached else _LATE_S if fine and armed.late else system.grace
            over = quiet and time.monotonic() >= quiet + patience and not armed.busy
            if over and _nothing_came(system, armed, moves):
                if not armed.standing:
                    return True
                system.crew.mend()  # and once more, on a network that is whole
        if deadline.passed:
            what = _outstanding(system, armed) or "faults that have not fired, or effects in flight"
            what += "".join(
                f"; {one} stands until then, and may be what keeps it: give seconds" for one in armed.standing
            )
            raise deadline.missed("the system to settle", what, system.crew.logs)
        system.crew.wait(_LOOK_S)


def _no_violation(system: System, keys: Sequence[str], armed: Armed) -> bool:
    """Whether nothing is wrong, as far as that can be known."""
    found = _asked(lambda: judge(system, keys, settled=True), armed)
    return found is not None and not found


def _outstanding(system: System, armed: Armed) -> str:
    """What is left to do."""
    left = _asked(system.outstanding, armed)
    return "a server is away" if left is None else left


def _asked(question: Callable[[], T], armed: Armed) -> T | None:
    """What is found out by asking servers; None while one is away, by a fault, of whom nothing can be asked."""
    before = armed.outages
    if not armed.away:
        try:
            return question()
        except Exception:
            if armed.outages == before:
                raise
    return None


def _nothing_came(system: System, armed: Armed, moves: int) -> bool:
    """Whether nothing has moved either of what the wire was about to tell."""
    system.crew.hear_out()
    return not armed.busy and armed.moves == moves


def judge(system: System, keys: Sequence[str], *, settled: bool) -> list[Violation]:
    """All violations among the keys; of invariants that need a settled system only if it is one."""
    return [found for one in system.invariants if one.final or settled for found in one.check(keys)]


def judge_again(system: System, verdict: Verdict, *, settled: bool = True) -> bool:
    """Judge a drill's keys; a check that raises decides nothing, and is a reason. Whether all could be judged."""
    try:
        verdict.violations = judge(system, verdict.keys, settled=settled)
    except Exception as error:  # noqa: BLE001 - whatever it is
        verdict.error = verdict.error or error
        if (reason := f"{type(error).__name__}: {error}") not in verdict.reasons:
            verdict.reasons.append(reason)
        return False
    return True


def _judge_finally(system: System, verdict: Verdict, *, settled: bool) -> None:
    if not judge_again(system, verdict, settled=settled):
        return
    unseen = not any(map(verdict.requests, verdict.keys))
    if not verdict.keys:
        verdict.reasons.append("the workload had nothing accepted, so there is nothing to judge")
    elif unseen and not verdict.violations:
        verdict.reasons.append("no ledger has a record of any accepted key: is its `key` the right field?")
