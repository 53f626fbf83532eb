"""Servers that are killed, frozen and ended in order: nothing is left of them, and they know what they knew."""

from __future__ import annotations

import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest

from chaos import ChaosError, NotInTime, PortTaken, UnknownName
from chaos.services.kafka import Kafka
from chaos.services.postgres import Postgres
from chaos.waiting import Deadline, wait_until
from chaos.workers.proc import alive, children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Lane, Session
    from chaos.services.server import Server

PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def lane(onecharge: Session) -> Iterator[Lane]:
    """With servers of its own."""
    with onecharge.lane(schema="create table kept (n int)", topics={"kept": 1}, own_servers=True) as lane:
        yield lane


def family(server: Server) -> list[int]:
    """Its processes."""
    assert server.process is not None
    return [server.process.pid, *children(server.process.pid)]


def known(lane: Lane) -> tuple[int, int]:
    """How many rows Postgres has, and the offset of one more message."""
    [(rows,)] = lane.execute("select count(*) from kept")
    lane.produce("kept", b"one more")
    return rows, int(lane.evidence[-1].rpartition("-")[2])


@pytest.mark.parametrize("name", ["postgres", "kafka"])
@pytest.mark.parametrize("how", ["kill", "end"])
def test_it_is_back_with_its_data(lane: Lane, name: str, how: str) -> None:
    """None of its processes is left, and when it is back it knows what it knew, at the same address."""
    server = lane.server(name)
    lane.execute("insert into kept values (1)")
    (rows, offset), before = known(lane), family(server)
    if how == "kill":
        server.kill()
    else:
        server.end(Deadline(PATIENCE_S))
    assert not [pid for pid in before if alive(pid)]
    lane.forget_connections()
    server.start_again(Deadline(PATIENCE_S))
    assert known(lane) == (rows, offset + 1)
    assert not {*family(server)} & {*before}


def test_all_of_a_frozen_postgres_stands_still(lane: Lane) -> None:
    """Who is connected already is not answered either, until it goes on."""
    server, answered = lane.server("postgres"), threading.Event()
    with psycopg.connect(lane.postgres, autocommit=True) as connection:

        def ask() -> None:
            connection.execute("select 1")
            answered.set()

        assert len(server.freeze()) > 1
        asking = threading.Thread(target=ask)
        asking.start()
        assert not answered.wait(0.2)
        server.thaw()
        assert answered.wait(PATIENCE_S)
        asking.join()


@pytest.mark.parametrize("name", ["postgres", "kafka"])
def test_what_is_frozen_can_be_killed(lane: Lane, name: str) -> None:
    """And started again, also without having been killed."""
    server = lane.server(name)
    before = server.freeze()
    lane.forget_connections()
    server.start_again(Deadline(PATIENCE_S))
    assert not [pid for pid in before if alive(pid)]
    known(lane)


def test_several_start_at_once(onecharge: Session) -> None:
    """Lanes that are made side by side have servers of their own each, whose data goes with them."""

    def rows(number: int) -> list[tuple[int]]:
        schema = f"create table t (n int); insert into t values ({number:d})"  # noqa: S608 - a number
        with onecharge.lane(schema=schema, own_servers=True) as one:
            found: list[tuple[int]] = one.execute("select n from t")
            return found

    before = set(onecharge.supervisor.run_dir.glob("postgres-*"))
    with ThreadPoolExecutor(3) as pool:
        assert [*pool.map(rows, range(3))] == [[(0,)], [(1,)], [(2,)]]
    assert set(onecharge.supervisor.run_dir.glob("postgres-*")) == before


def test_other_servers_are_left_alone(onecharge: Session, lane: Lane) -> None:
    """Those of other lanes are others, and are not given away to be broken."""
    with onecharge.lane(schema="", topics={}) as shared:
        assert (shared.kafka, shared.postgres.rpartition("/")[0]) != (lane.kafka, lane.postgres.rpartition("/")[0])
        with pytest.raises(ChaosError, match=r"other drills use it\. Make the lane with own_servers=True"):
            shared.server("kafka")
        with pytest.raises(UnknownName, match="no server 'redis'"):
            shared.server("redis")


def test_they_end_with_their_lane(onecharge: Session) -> None:
    """Whatever has befallen them, nothing of them is left."""
    with onecharge.lane(schema="", topics={}, own_servers=True) as lane:
        left = [pid for name in ("postgres", "kafka") for pid in family(lane.server(name))]
        lane.server("postgres").freeze()
        lane.server("kafka").kill()
    wait_until("them to be gone", lambda: not [pid for pid in left if alive(pid)], Deadline(PATIENCE_S))


@pytest.mark.parametrize("server", [Postgres("host=127.0.0.1 port=1"), Kafka("127.0.0.1:1")])
def test_somebody_else_s_is_refused(server: Server) -> None:
    """What we have not started is not ours to break."""
    with pytest.raises(ChaosError, match="is run by somebody else: it is not ours to break"):
        server.kill()
    with pytest.raises(ChaosError, match="is run by somebody else"):
        server.freeze()


@pytest.mark.parametrize(("name", "nth"), [("postgres", 0), ("kafka", 0), ("kafka", 1), ("kafka", 2)])
def test_taken_port(lane: Lane, name: str, nth: int) -> None:
    """It does not come back where somebody else listens by now: it is said who that is, and what to do.

    Of Kafka the third is the listener of a worker.
    """
    server = lane.server(name)
    assert lane.links.kafka("worker.0")
    server.kill()
    lane.forget_connections()
    port = server.listens[nth]
    with socket.create_server(("127.0.0.1", port.number)), pytest.raises(PortTaken) as raised:
        server.start_again(Deadline(PATIENCE_S))
    taker = f"{psutil.Process().name()} (pid {os.getpid()})"
    assert (raised.value.address, raised.value.server, raised.value.taker) == (port.address, name, taker)
    assert str(raised.value) == (
        f"{name} cannot be started at {port.address}, which {taker} has taken: end that, or start the run again, which "
        "leases other ports."
    )
    server.start_again(Deadline(PATIENCE_S))


def test_one_that_does_not_end(lane: Lane) -> None:
    """Waiting for it has an end; it is said what was awaited."""
    server = lane.server("postgres")
    server.freeze()
    with pytest.raises(NotInTime, match="to end"):
        server.end(Deadline(0.2))
    server.thaw()
    assert server.process is not None
    server.process.wait(Deadline(PATIENCE_S))
    lane.forget_connections()
    server.start_again(Deadline(PATIENCE_S))
