"""Histories written by hand: what a report is made from, without any server."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from chaos.history import Accepted, Arrived, Asked, Began, Broke, Event, Judged, Named, Replied, Spared, Started
from chaos.report.data import Finding, Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Iterable

E = TypeVar("E", bound=Event)
EPOCH = 1795400500.0


@dataclass
class Play:
    """A drill as it goes on: each call is an event, a millisecond after the last one."""

    schedule: str = ""
    now: float = EPOCH
    events: list[Event] = field(default_factory=list)
    generations: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    effects: int = 0

    def __post_init__(self) -> None:
        self.events.append(Began(self.now, self.schedule))

    def pause(self, seconds: float) -> None:
        """Nothing happens."""
        self.now += seconds

    def key(self, alias: str) -> str:
        """A key is told of and accepted."""
        key = f"{alias}-{'0' * 20}"
        self._add(Named(self._tick(), key, alias))
        self._add(Accepted(self._tick(), key))
        return key

    def ask(self, worker: str, site: str, *aliases: str) -> Asked:
        """An effect is on the wire; `worker` is such as ``payment.0``."""
        role = worker.rpartition(".")[0]
        point = f"{role}~{self.generations[role]}/{site}"
        self.effects += 1
        names = (point, *(f"{point}[{alias}]" for alias in aliases))
        return self._add(Asked(self._tick(), tuple(map(self._count, names)), worker, 1, self.effects))

    def reply(self, asked: Asked, outcome: str = "done") -> None:
        """Somebody knows what became of it."""
        self._add(Replied(self._tick(), asked.points[0], outcome, *asked.number))

    def effect(self, worker: str, site: str, *aliases: str, outcome: str = "done") -> Asked:
        """An effect, and what became of it."""
        asked = self.ask(worker, site, *aliases)
        self.reply(asked, outcome)
        return asked

    def checkpoint(self, worker: str, name: str) -> None:
        """A process came to a checkpoint."""
        role = worker.rpartition(".")[0]
        self._add(Arrived(self._tick(), self._count(f"{role}~{self.generations[role]}/{name}"), worker))

    def broke(self, fault: str, process: str, what: str = "was ended by SIGKILL") -> None:
        """A fault was carried out in a process such as ``payment~0``."""
        self._add(Broke(self._tick(), fault, process, what))

    def spared(self, fault: str, reason: str) -> None:
        """A fault was reached and not carried out."""
        self._add(Spared(self._tick(), fault, reason))

    def start(self, process: str) -> None:
        """The next process of a worker runs."""
        self.pause(0.02)
        self.generations[process.partition("~")[0].partition(".")[0]] += 1
        self._add(Started(self._tick(), process, 4711))

    def outcome(self, status: str, *findings: Finding, reasons: Iterable[str] = (), again: int = 0) -> Outcome:
        """What a report has of it."""
        self._add(Judged(self._tick(), status, tuple(reasons)))
        fired = tuple((one.fault, f"{one.worker} {one.what}") for one in self.events if isinstance(one, Broke))
        return Outcome(
            self.schedule,
            status,
            self.now - EPOCH,
            fired,
            findings,
            tuple(reasons),
            again=again,
            reproduced=again - again // 5,
            history=tuple(self.events),
        )

    def _tick(self) -> float:
        self.now += 0.001
        return self.now

    def _count(self, name: str) -> str:
        self.counts[name] += 1
        return f"{name}#{self.counts[name]}"

    def _add(self, event: E) -> E:
        self.events.append(event)
        return event


def charged_twice(alias: str) -> Finding:
    """What a ledger shows of it."""
    records = tuple(f'#{n} {{"n":{n},"order_id":"{alias}","effect":true,"reply":201}}' for n in (1, 2))
    return Finding("one effect per key", f"{alias}-{'0' * 20}", alias, "has 2 effects", records)


def order(play: Play, alias: str) -> None:
    """One order on its way through the whole pipeline."""
    play.key(alias)
    play.effect("api.0", "postgres.commit", alias)
    play.effect("relay.0", "kafka.produce", alias)
    play.effect("payment.0", "http.post", alias)
    play.effect("payment.0", "postgres.commit", alias)


def double_charge(alias: str = "key-1", site: str = "http.post", action: str = "crash-after") -> Outcome:
    """The payment worker is killed around one of its effects, and charges again."""
    play = Play(f"payment~0/{site}[{alias}]#1:{action}")
    play.key(alias)
    play.effect("api.0", "postgres.commit", alias)
    for own in ("http.post", "postgres.commit"):
        asked = play.ask("payment.0", own, alias)
        if own == site:
            if action == "crash-after":
                play.reply(asked)
            break
        play.reply(asked)
    play.broke(play.schedule, "payment~0")
    play.start("payment~1")
    play.effect("payment.0", "http.post", alias)
    play.effect("payment.0", "postgres.commit", alias)
    return play.outcome("violated", charged_twice(alias), again=10)


def thousand_orders(many: int = 1000) -> Outcome:
    """A drill of so many orders, one of which is charged twice in the middle."""
    play, broken = Play(f"payment~0/http.post[key-{many // 2}]#1:crash-after"), f"key-{many // 2}"
    for number in range(1, many + 1):
        alias = f"key-{number}"
        if alias != broken:
            order(play, alias)
            continue
        play.key(alias)
        play.effect("payment.0", "http.post", alias)
        play.broke(play.schedule, "payment~0")
        play.start("payment~1")
        play.effect("payment.0", "http.post", alias)
    return play.outcome("violated", charged_twice(broken), again=10)


def report(*outcomes: Outcome, status: str = "violated", kind: str = "sweep") -> Report:
    """A report of these."""
    return Report(kind, "shop", status, 12.5, outcomes, faults=("crash-before", "crash-after"))
