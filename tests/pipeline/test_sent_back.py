"""Dead letters go back to their group, as the events they were, once, and not for ever."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from confluent_kafka import Producer

from pipeline.gateway.ledger import DECLINED_AMOUNT
from pipeline.gateway_client import Asked, Gateway
from pipeline.quarantine import replay
from pipeline.quarantine.dead import DeadLetters, headers
from pipeline.quarantine.letters import FAILING, POISON, Failure, Letter
from pipeline.quarantine.replay import Replay, dead_letters, main
from pipeline.route.topics import require_topic
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


def shell(settings: ReplaySettings) -> dict[str, str]:
    """Nothing else but what a process needs to find this code."""
    return environment(settings) | {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


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
    noted = db.execute("select consumer_group, origin, replays, noted_by = current_user from replays").fetchall()
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


def test_what_is_left_is_not_sent(settings: ReplaySettings, db: psycopg.Connection) -> None:
    """A letter that was left for good is not sent but by `--again`, and then it is a letter that was sent."""
    bury(settings, letter("o-1", 1), letter("o-2", 2))
    back = Replay(settings, GROUP, 1000)
    until(lambda: attempt(lambda: back.send([])))
    one, other = dead_letters(settings, GROUP)
    assert back.leave([one]) == [one]
    assert back.leave([one]) == []
    assert back.send([one, other]) == [other]
    fates = "select origin, fate from replays order by origin"
    assert db.execute(fates).fetchall() == [(one.origin, "left"), (other.origin, "sent")]
    assert back.send([one], again=True) == [one]
    assert back.leave([one]) == []
    assert db.execute(fates).fetchall() == [(one.origin, "sent"), (other.origin, "sent")]


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
    env = shell(settings)
    line = [sys.executable, "-m", "pipeline", "replay", GROUP]
    done = subprocess.run([*line, "--dry-run"], env=env, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "0 of 0 letters would be sent to group 'inventory'; 0 were seen to before." in done.stderr
    away = env | {"DATABASE_URL": "postgresql://postgres@127.0.0.1:9/none"}
    bury(settings, letter("o-1", 1))
    until(lambda: attempt(lambda: Replay(settings, GROUP, 1e6).send([])))
    done = subprocess.run(line, env=away, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    done = subprocess.run([*line, "--per-second", "0"], env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 2
    assert "more than 0" in done.stderr
    done = subprocess.run([*line[:-1], "inventroy"], env=env, text=True, capture_output=True, check=False)
    assert (done.returncode, "invalid choice: 'inventroy'" in done.stderr) == (2, True)


def said(caplog: pytest.LogCaptureFixture) -> str:
    """What the tool has said since this was asked last."""
    text = caplog.text
    caplog.clear()
    return text


def test_a_dry_run_is_what_would_be_done(
    settings: ReplaySettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What was seen to is not listed any more, neither by a dry run nor by what follows it, unless it comes again."""
    caplog.set_level("INFO")
    bury(settings, letter("o-1", 1), letter("o-2", 2))
    replayed(settings, "--order", "o-1", monkeypatch=monkeypatch)
    assert "1 of 1 letters were sent" in said(caplog)
    replayed(settings, "--dry-run", monkeypatch=monkeypatch)
    assert "would be sent: orders[0]@2" in caplog.text
    assert "orders[0]@1" not in caplog.text
    assert "1 of 2 letters would be sent to group 'inventory'; 1 were seen to before." in said(caplog)
    capsys.readouterr()
    replayed(settings, "--dry-run", "--leave", "--order", "o-1", monkeypatch=monkeypatch)
    assert "0 of 1 letters would be left" in said(caplog)
    assert capsys.readouterr().out == ""
    replayed(settings, "--dry-run", "--again", monkeypatch=monkeypatch)
    assert "2 of 2 letters would be sent" in said(caplog)


@pytest.mark.parametrize("kind", [POISON, FAILING])
def test_what_was_sent_too_often_can_be_left(
    settings: ReplaySettings, db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Who has sent a letter three times is not kept from being done with it."""
    bury(settings, letter("o-1", 7, ("x-replays", b"3"), ("x-origin-topic", b"orders")), kind=kind)
    replayed(settings, "--kind", kind, monkeypatch=monkeypatch)
    assert sent(settings) == []
    replayed(settings, "--kind", kind, "--leave", monkeypatch=monkeypatch)
    assert db.execute("select replays, fate from replays").fetchall() == [(4, "left")]
    assert Replay(settings, GROUP, 1).waiting(dead_letters(settings, GROUP)) == []


def test_only_what_was_shown(
    settings: ReplaySettings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a dry run has named is done as it was named; if it would be something else by now, nothing is done."""

    def named(*options: str) -> list[str]:
        replayed(settings, *options, monkeypatch=monkeypatch)
        return capsys.readouterr().out.split()

    bury(settings, letter("o-1", 1))
    old, to_leave = named("--dry-run"), named("--dry-run", "--leave")
    bury(settings, letter("o-2", 2))
    for changed in ([*old], [*to_leave], [*to_leave, "--leave"]):
        with pytest.raises(SystemExit) as ended:
            named(*changed)
        assert ended.value.code == replay.CHANGED
    assert sent(settings) == []
    new = capsys.readouterr().out.split()[:2]
    assert named(*new) == []
    assert len(sent(settings)) == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-replays", b"often"),
        ("x-replays", b"-1"),
        ("x-replays", b"9" * 5000),
        ("x-origin-topic", b"a\0b"),
        ("x-origin-partition", b""),
        ("x-origin-offset", b"\xff"),
        ("x-origin-timestamp", b"yesterday"),
    ],
)
def test_what_somebody_else_has_written(
    settings: ReplaySettings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: bytes,
) -> None:
    """Headers that are called as ours and say nonsense count for nothing, which is said; such a letter goes back."""
    caplog.set_level("INFO")
    foreign: list[tuple[str, str | bytes | None]] = [
        ("x-origin-topic", b"orders"),
        ("x-origin-partition", b"0"),
        ("x-origin-offset", b"7"),
        (name, value),
    ]
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    until(lambda: attempt(lambda: require_topic(producer, settings, f"dead.{GROUP}", of="dead")))
    producer.produce(f"{settings.namespace}.dead.{GROUP}", b"{}", b"o-1", headers=foreign)
    assert producer.flush(20) == 0
    replayed(settings, "--kind", FAILING, monkeypatch=monkeypatch)
    [one] = sent(settings)
    assert dict(one.headers())["x-replays"] == b"1"
    assert re.search(rf"{name}.* cannot be read, and counts for nothing", caplog.text)
    [dead] = dead_letters(settings, GROUP)
    if name == "x-origin-timestamp":
        assert dead.age_s > 1e9


@pytest.mark.parametrize("tool", ["replay", "rewind", "slot"])
def test_a_tool_has_no_port(settings: ReplaySettings, tool: str) -> None:
    """What ends by itself does not fail over a METRICS_PORT that the worker beside it has."""
    with socket.create_server(("127.0.0.1", 0)) as worker:
        env = shell(settings) | {"METRICS_PORT": str(worker.getsockname()[1])}
        env |= {"DATABASE_URL": "postgresql://postgres@127.0.0.1:9/none", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9"}
        line = [sys.executable, "-m", "pipeline", tool, *([GROUP] if tool != "slot" else [])]
        done = subprocess.run(line, env=env, text=True, capture_output=True, check=False)
    assert "METRICS_PORT" not in done.stderr
    assert " at 127.0.0.1:9" in done.stderr
