"""Dead letters go back to their group, as the events they were, once, and not for ever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest

from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.gateway_client import Asked, Gateway
from pipeline.quarantine import replay
from pipeline.quarantine.dead import DeadLetters, headers
from pipeline.quarantine.letters import FAILING, POISON, Failure, Letter
from pipeline.quarantine.replay import Replay, dead_letters, main
from pipeline.runtime import Unavailable
from pipeline.settings import ReplaySettings
from tests.pipeline.slots import messages
from tests.pipeline.workers import until

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from chaos import Lane
    from tests.pipeline.workers import Worker

GROUP = "inventory"
PRICE = {"amount": 1999, "currency": "EUR", "customer_id": "c-1"}


@pytest.fixture
def settings(lane: Lane, namespace: str, db: psycopg.Connection) -> ReplaySettings:
    """For a group that is new."""
    db.execute("truncate replays")
    return ReplaySettings(database_url=lane.postgres, kafka_bootstrap_servers=lane.kafka, namespace=namespace)


def letter(order: str, offset: int, *headers: tuple[str, bytes | None], topic: str = "orders") -> Letter:
    """One that a group cannot handle."""
    value = json.dumps({"order_id": order, "at": offset}).encode()
    return Letter(topic, 0, offset, 1_700_000_000_000, order.encode(), value, [("a", b"\xff"), *headers])


def bury(settings: ReplaySettings, *letters: Letter, kind: str = FAILING, group: str = GROUP) -> None:
    """Put them where the group's dead letters are."""
    dead = DeadLetters(settings, group)
    until(lambda: attempt(lambda: dead.bury([(one, Failure.of(ValueError("why"), kind=kind)) for one in letters])))


def attempt(step: Callable[[], object]) -> bool:
    """Whether it worked; the topic may be about to be made."""
    try:
        step()
    except Unavailable:
        return False
    return True


def sent(settings: ReplaySettings, group: str = GROUP) -> list[Any]:
    """What is on the group's retry topic."""
    return messages(settings, f"retry.{group}")


def replayed(settings: ReplaySettings, *more: str, monkeypatch: pytest.MonkeyPatch, group: str = GROUP) -> None:
    """Have the command line do it."""
    for name, value in environment(settings).items():
        monkeypatch.setenv(name, value)
    until(lambda: attempt(lambda: Replay(settings, group, 1e6).send([])))
    main([group, "--per-second", "1000", *more])


def environment(settings: ReplaySettings) -> dict[str, str]:
    """What says the same to a process."""
    return {name.upper(): str(value) for name, value in settings.model_dump(exclude_none=True).items()}


def test_it_is_the_same_event(settings: ReplaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Key, value and headers are what they were, each order's in their sequence; and it says how often it was sent."""
    letters = [letter("o-1", 7), letter("o-2", 9), letter("o-1", 11)]
    bury(settings, letters[2], letters[0], letters[1])
    replayed(settings, monkeypatch=monkeypatch)
    found = sent(settings)
    assert [json.loads(one.value())["at"] for one in found if one.key() == b"o-1"] == [7, 11]
    assert {(one.key(), one.value()) for one in found} == {(one.key, one.value) for one in letters}
    for one in found:
        assert ("a", b"\xff") in one.headers()
        assert dict(one.headers())["x-replays"] == b"1"


def test_twice_is_once(settings: ReplaySettings, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent is noted, with who has sent it, and sent again only on demand; a letter buried twice is one."""
    bury(settings, letter("o-1", 7))
    bury(settings, letter("o-1", 7))
    replayed(settings, monkeypatch=monkeypatch)
    replayed(settings, monkeypatch=monkeypatch)
    assert len(sent(settings)) == 1
    noted = db.execute("select consumer_group, origin, replays, sent_by = current_user from replays").fetchall()
    assert noted == [(GROUP, "orders[0]@7", 1, True)]
    replayed(settings, "--again", monkeypatch=monkeypatch)
    assert len(sent(settings)) == 2


def test_what_comes_back_dead(settings: ReplaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a letter of the same origin, can be sent once more, and after so many times stays where it is."""
    bury(settings, letter("o-1", 7))
    for count in range(1, 5):
        replayed(settings, "--most", "3", monkeypatch=monkeypatch)
        found = sent(settings)
        assert len(found) == min(count, 3)
        last = max(map(Letter.of, found), key=lambda one: int(dict(one.headers)["x-replays"] or b""))
        bury(settings, last)
        [one] = dead_letters(settings, GROUP)
        assert (one.origin, one.replays) == ("orders[0]@7", min(count, 3))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--order", "o-1"], {"o-1"}),
        (["--order", "o-1", "--order", "o-3"], {"o-1", "o-3"}),
        (["--kind", POISON], {"o-3"}),
        (["--kind", FAILING], {"o-1", "o-2"}),
        (["--exception", "ValueError"], {"o-1", "o-2", "o-3"}),
        (["--exception", "KeyError"], set()),
        (["--dry-run"], set()),
    ],
)
def test_only_what_is_asked_for(
    settings: ReplaySettings, monkeypatch: pytest.MonkeyPatch, options: list[str], expected: set[str]
) -> None:
    """Filters leave the others where they are; a dry run sends nothing, and notes nothing."""
    bury(settings, letter("o-1", 1), letter("o-2", 2))
    bury(settings, letter("o-3", 3), kind=POISON)
    replayed(settings, *options, monkeypatch=monkeypatch)
    assert {one.key().decode() for one in sent(settings)} == expected
    replayed(settings, monkeypatch=monkeypatch)
    assert len(sent(settings)) == 3


def test_the_last_burial_counts(settings: ReplaySettings, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is the one that was sent back most often, in whatever order partitions are read: not all letters have keys."""
    failure = Failure.of(ValueError("why"))
    first = letter("o-1", 7)
    last = letter("o-1", 7, ("x-replays", b"1"))
    buried = [one._replace(headers=[(k, v) for k, v in headers(GROUP, one, failure)]) for one in (last, first)]  # type: ignore[misc]
    monkeypatch.setattr(replay, "read", lambda *_: iter(buried))
    assert [one.replays for one in dead_letters(settings, GROUP)] == [1]


@pytest.mark.parametrize("asking", [True, False])
def test_what_a_gateway_may_have_forgotten(
    settings: ReplaySettings,
    gateway: Worker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    asking: bool,
) -> None:
    """A charge that is older than keys are kept is sent only if the gateway, when asked, knows of none."""

    def event(order: str, offset: int, kind: str = "order.placed", ago_s: float = 2e5) -> Letter:
        value = json.dumps({"event_id": str(uuid4()), "type": kind, "order_id": order, "seq": 1} | PRICE).encode()
        at_ms = int((time.time() - ago_s) * 1000)
        return letter("a key", offset)._replace(value=value, at_ms=at_ms)

    old = [event("charged", 1), event("declined", 2), event("unknown", 3)]
    harmless = [event("young", 4, ago_s=80_000), event("charged", 5, kind="order.failed"), letter("no event", 6)]
    with closing(Gateway(f"http://127.0.0.1:{gateway.port}")) as psp:
        psp.charge([Asked(one, one, 1999, "EUR") for one in ("charged", "young")])
        psp.charge([Asked("declined", "declined", DECLINED_AMOUNT, "EUR")])
    bury(settings, *old, *harmless, group="payment")
    if asking:
        settings = settings.model_copy(update={"gateway_url": f"http://127.0.0.1:{gateway.port}"})
    replayed(settings, monkeypatch=monkeypatch, group="payment")
    expected = [3, 4, 5, 6] if asking else [4, 5, 6]
    found = {Letter.of(one).value for one in sent(settings, "payment")}
    assert [one.offset for one in (*old, *harmless) if one.value in found] == expected
    said = [record.message for record in caplog.records if "the gateway" in record.message]
    assert len(said) == 6 - len(expected)
    assert all(("its charge" if asking else "set GATEWAY_URL") in one for one in said)


def test_not_faster_than_asked(settings: ReplaySettings) -> None:
    """So many letters a second, at most."""
    bury(settings, *(letter("o-1", number) for number in range(4)))
    slow = Replay(settings, GROUP, 10)
    until(lambda: attempt(lambda: slow.send([])))
    letters = dead_letters(settings, GROUP)
    began = time.monotonic()
    assert slow.send(letters) == letters
    assert time.monotonic() - began >= 0.4


def test_what_kafka_does_not_take_is_not_noted(settings: ReplaySettings, db: psycopg.Connection) -> None:
    """What is not confirmed is said, and sent the next time."""
    bury(settings, letter("o-1", 1))
    letters = dead_letters(settings, GROUP)
    back = Replay(settings, GROUP, 1000)
    until(lambda: attempt(lambda: back.send([])))
    too_large = letters[0]._replace(letter=letters[0].letter._replace(value=bytes(2_000_000)))
    with pytest.raises(Unavailable, match=r"letter orders\[0\]@1 not taken: .*MSG_SIZE_TOO_LARGE"):
        back.send([too_large])
    assert db.execute("select from replays").fetchall() == []
    assert back.send(letters) == letters


def test_the_command_line(settings: ReplaySettings) -> None:
    """A group without dead letters is no error; a server that is away is one line and exit code 1."""
    env = environment(settings) | {"PATH": os.environ["PATH"]}
    line = [sys.executable, "-m", "pipeline", "replay", GROUP]
    done = subprocess.run([*line, "--dry-run"], env=env, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "0 of 0 letters were sent to group 'inventory'." in done.stderr
    away = env | {"DATABASE_URL": "postgresql://postgres@127.0.0.1:9/none"}
    bury(settings, letter("o-1", 1))
    until(lambda: attempt(lambda: Replay(settings, GROUP, 1e6).send([])))
    done = subprocess.run(line, env=away, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    done = subprocess.run([*line, "--per-second", "0"], env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert "more than 0" in done.stderr
