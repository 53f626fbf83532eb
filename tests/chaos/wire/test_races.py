"""What two things at once must not do: faults and drills, faults and each other, faults and servers that go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from typing import TYPE_CHECKING

import pytest

from chaos import Worker
from chaos.services.ports import lease_port
from chaos.waiting import Deadline, wait_until
from chaos.wire import connection, messages
from chaos.wire.client import Wire
from tests.chaos import race_workers
from tests.chaos.wire.kafka_frames import batch, request
from tests.chaos.wire.rig import Rig
from tests.chaos.wire.stage_wire import MOMENT_S, POST, PUT, Stage, answer, on_a_stage, reset, say_nothing

if TYPE_CHECKING:
    from pathlib import Path

    from chaos import Session
    from chaos.workers.supervisor import Supervisor
    from tests.chaos.wire.stage_wire import Serve, Served

LONG = ["hold=30", "delay=30", "freeze=held,30", "crash-late=30"]
HELD = ["hold=0.05", "delay=0.05", "freeze=held,0.05"]
BODY = 8 << 20


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Servers have a moment to answer what they were given."""
    monkeypatch.setattr(connection, "_DRAIN_S", 0.1)
    monkeypatch.setattr(connection, "_CANCEL_S", 0.1)


# -- a drill ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", LONG)
@on_a_stage
async def test_fault_at_work_when_the_drill_ends(stage: Stage, fault: str) -> None:
    """A fault still at work when its drill ends is ended with it: it has failed, in that drill, and kills nobody."""
    _, link = await stage.linked()
    number = stage.arm(f"w/http.post#1:{fault}")
    client = await stage.connect(link, POST)
    await stage.reached()
    await stage.proxy.disarm()
    [failed] = stage.all(messages.Failed)
    assert (failed.armed, failed.killed) == (number, False)
    assert "still at work" in failed.reason
    assert not stage.proxy._working
    assert await client.hears() == "created"
    stage.arm("")
    seen = len(stage.events)
    client.send(POST)
    assert await client.hears() == "created"
    assert {type(event) for event in stage.events[seen:]} == {messages.Seen, messages.Answered}
    assert stage.kills() == []
    orders = [order.what for order in stage.all(messages.Order)]
    assert orders == (["stop", "continue"] if "freeze" in fault else [])


@on_a_stage
async def test_fault_that_had_not_begun_when_the_drill_ends(stage: Stage) -> None:
    """A fault whose point is reached in the very turn in which its drill ends has failed, and its request goes on."""
    _, link = await stage.linked()
    stage.arm("w/http.post#1:hold=30")
    ending: list[asyncio.Task[None]] = []
    stage.at_reached = lambda: ending.append(asyncio.get_running_loop().create_task(stage.proxy.disarm()))
    client = await stage.connect(link, POST)
    assert await client.hears() == "created"
    await ending[0]
    assert "still at work" in (await stage.failed()).reason
    assert not stage.proxy._working


@on_a_stage
async def test_drill_that_ends_with_the_answer_to_an_order(stage: Stage) -> None:
    """A fault that is ended in the very turn in which its order was carried out is ended all the same."""
    _, link = await stage.linked()
    stage.arm("w/http.post#1:freeze=held,30")

    def end() -> None:
        stage.at_carried = lambda: None
        for task in stage.proxy._working.values():
            task.cancel()

    stage.at_carried = end
    client = await stage.connect(link, POST)
    assert await client.hears() == "created"
    assert "still at work" in (await stage.failed()).reason
    assert [order.what for order in stage.all(messages.Order)] == ["stop", "continue"]


def test_held_when_the_lane_closes(supervisor: Supervisor) -> None:
    """A request that is held when the wire ends is never delivered."""
    with contextlib.closing(lease_port()) as listens, socket.create_server(("127.0.0.1", 0)) as server:
        upstream = server.getsockname()[1]
        server.settimeout(10)
        with Wire(supervisor, "closing") as wire:
            reached: list[messages.Event] = []
            wire.hear = lambda event: reached.append(event) if isinstance(event, messages.Reached) else None
            wire.do(lambda n: messages.OpenLink(n, "w", "http", listens.number, "127.0.0.1", upstream))
            wire.do(lambda n: messages.Enlist(n, "w", "w", 0, 0))
            fault = messages.ArmedFault("a", "w", 0, "http.post", "", 1, "hold", "30")
            wire.do(lambda n: messages.Arm(n, (fault,)))
            client = socket.create_connection(("127.0.0.1", listens.number))
            client.sendall(POST)
            accepted, _ = server.accept()
            wait_until("the fault", lambda: reached, Deadline(10))
        with client, accepted:
            accepted.settimeout(10)
            assert _all_of(accepted) == b""


def _all_of(end: socket.socket) -> bytes:
    try:
        return end.recv(1000)
    except ConnectionResetError:
        return b""


# -- kills -------------------------------------------------------------------------------------------------------------


@on_a_stage
async def test_stale_fault_and_the_successor(stage: Stage) -> None:
    """A fault that works on a connection of a process that is dead gives up; it never kills the successor."""
    _, link = await stage.linked()
    stage.arm("w/http.post#1:crash-late=30; w/http.put#1:crash-before")
    await stage.connect(link, POST)
    await stage.reached()
    await stage.connect(link, PUT)
    assert (await stage.fired()).fault == 1
    stage.enlist(life=1)
    successor = await stage.connect(link, POST)
    assert await successor.hears() == "created"
    assert (await stage.failed()).fault == 0
    await stage.proxy.disarm()
    successor.send(POST)
    assert await successor.hears() == "created"
    assert [order.life for order in stage.kills()] == [0]


@on_a_stage
async def test_two_kills_at_once(stage: Stage) -> None:
    """Of two kills of one process that are due at once, one is ordered, and the other is said not to have been done."""
    _, link = await stage.linked()
    stage.order_s = 0.05
    stage.arm("w/http.post#1:crash-before; w/http.put#1:crash-before")
    first, second = await stage.connect(link), await stage.connect(link)
    await stage.until(lambda: [one.requests.held for one in stage.proxy.members["w"].connections] == [False, False])
    first.send(POST)
    second.send(PUT)
    fired, failed = await stage.fired(), await stage.failed()
    assert len(stage.kills()) == 1
    assert (fired.killed, failed.killed) == (True, False)
    assert {fired.fault, failed.fault} == {0, 1}
    await stage.nothing_left()


@pytest.mark.parametrize("order_s", [0.0, 0.2])
@pytest.mark.parametrize("fault", HELD)
@on_a_stage
async def test_held_request_and_a_cut(stage: Stage, fault: str, order_s: float) -> None:
    """What one fault holds is not delivered once another has begun to kill, however long that takes."""
    served, link = await stage.linked()
    stage.arm(f"w/http.post#1:{fault}; w/http.put#1:crash-before")
    first, second = await stage.connect(link), await stage.connect(link)
    first.send(POST)
    await stage.reached()
    stage.order_s = order_s
    second.send(PUT)
    assert (await stage.fired()).fault == 1
    assert (await stage.failed()).fault == 0
    await stage.nothing_left()
    assert served.requests == []


@pytest.mark.parametrize("client_goes", [False, True])
@on_a_stage
async def test_held_request_whose_server_closed_and_a_kill(stage: Stage, *, client_goes: bool) -> None:
    """A held request whose server has closed goes with its process too: it is not sent on a fresh connection."""
    closed = asyncio.Event()

    async def close_first(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if served.connections == 1:
            await closed.wait()
        else:
            await answer(served, reader, writer)

    served, link = await stage.linked(close_first)
    _, other = await stage.linked()
    stage.arm("w/http.post#1:delay=0.3; w/http.put#1:crash-before")
    client = await stage.connect(link, POST)
    await stage.reached()
    [held] = stage.proxy.members["w"].connections
    closed.set()
    await stage.until(lambda: held._reopen)
    if client_goes:
        client.reset()
        await stage.until(lambda: held.client.gone and held.server.gone)
    await stage.connect(other, PUT)
    assert (await stage.fired()).fault == 1
    assert (await stage.failed()).fault == 0
    await stage.nothing_left()
    assert served.requests == []


@on_a_stage
async def test_kill_that_fails(stage: Stage) -> None:
    """When the order to kill fails, that is said, and nothing of the worker is left at its server."""
    served, link = await stage.linked()
    stage.order_s, stage.order_error = 0.02, "w~0 exited with code 0"
    stage.arm("w/http.post#1:crash-before")
    client = await stage.connect(link, POST)
    await stage.reached()
    client.writer.close()
    failed = await stage.failed()
    assert (failed.reason, failed.killed) == ("w~0 exited with code 0", True)
    await stage.nothing_left()
    assert served.requests == []


@on_a_stage
async def test_two_faults_at_one_effect(stage: Stage) -> None:
    """Of two faults that are due at one effect the first is carried out; the point of the second has passed by."""
    _, link = await stage.linked()
    stage.arm("w/http.post#1:delay=0.01; w/http.post#1:repeat")
    client = await stage.connect(link, POST)
    assert await client.hears() == "created"
    assert (await stage.fired()).fault == 0
    failed = await stage.failed()
    assert (failed.fault, failed.displaced, failed.unfit) == (1, True, False)
    assert failed.reason == "w~0/http.post#1:delay=0.01 was due at the same effect"


# -- what a server may still be doing ----------------------------------------------------------------------------------


async def read_late(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read nothing for a moment, then all, and answer nothing."""
    await asyncio.sleep(MOMENT_S)
    while data := await reader.read(1 << 16):
        served.read(data, served.connections)
    writer.close()


async def read_nothing(_: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Leave everything where it is."""
    del reader
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(30)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("serve", [say_nothing, read_nothing])
@pytest.mark.parametrize("size", [22, BODY])
@on_a_stage
async def test_server_that_does_not_answer(stage: Stage, serve: Serve, size: int) -> None:
    """A kill is not said to have fired while a server may still carry out what it was given: that is said instead."""
    _, link = await stage.linked(serve)
    _, other = await stage.linked()
    stage.arm("w/http.put#1:crash-before")
    await stage.connect(link, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size)
    [given] = stage.proxy.members["w"].connections
    part = size == BODY and serve is read_nothing  # the server has not the whole of it, and never will
    await stage.until(lambda: given.server.full if part else any(one.whole for one in given.unanswered.values()))
    await stage.connect(other, PUT)
    await stage.until(lambda: stage.all(messages.Failed) or stage.all(messages.Fired))
    if part:
        assert (await stage.fired()).killed
    else:
        failed = await stage.failed()
        assert failed.killed
        assert "w~0/http.post#1 was not answered" in failed.reason
    await stage.nothing_left()


def produce() -> bytes:
    """A produce request that asks for no reply."""
    data = [{"name": "t", "partition_data": [{"records": batch((b"k", b"v", {}))}]}]
    return request(0, 7, acks=0, topic_data=data)


@on_a_stage
async def test_effect_without_a_reply_is_awaited(stage: Stage) -> None:
    """Of what nobody answers only the server's own end tells that it was read; the kill has not fired before."""
    served, (_, other) = await stage.serve(read_late), await stage.linked()
    link = stage.link(served.port, "kafka")
    stage.arm("w/http.put#1:crash-before")
    request = produce()
    await stage.connect(link, request)
    await stage.until(lambda: stage.all(messages.Seen))
    await stage.connect(other, PUT)
    fired = await stage.fired()
    [(at, _, data)] = served.got
    assert data == request
    assert at < fired.at


@pytest.mark.usefixtures("impatient")
@on_a_stage
async def test_effect_without_a_reply_that_is_not_read(stage: Stage) -> None:
    """Where the server does not end, what nobody answers may still be carried out, and that is said."""
    served, (_, other) = await stage.serve(read_nothing), await stage.linked()
    link = stage.link(served.port, "kafka")
    stage.arm("w/http.put#1:crash-before")
    await stage.connect(link, produce())
    await stage.until(lambda: stage.all(messages.Seen))
    await stage.connect(other, PUT)
    failed = await stage.failed()
    assert failed.killed
    assert "nobody answers w~0/kafka.produce#1" in failed.reason


# -- servers and clients that go ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("fault", HELD)
@on_a_stage
async def test_server_that_closes_while_a_request_is_held(stage: Stage, fault: str, *, rudely: bool) -> None:
    """A server that closes its idle connection while a request is held for it costs the client nothing."""

    async def close_first(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if served.connections > 1:
            await answer(served, reader, writer)
        elif rudely:
            await stage.reached()
            reset(writer)
        else:
            await stage.reached()

    served, link = await stage.linked(close_first)
    stage.arm(f"w/http.post#1:{fault}")
    client = await stage.connect(link, POST)
    assert await client.hears() == "created"
    await stage.fired()
    assert [(number, data[:4]) for _, number, data in served.got] == [(2, b"POST")]
    client.send(PUT)
    assert await client.hears() == "created"
    client.writer.close()
    await stage.nothing_left()


@on_a_stage
async def test_server_that_is_away_when_a_request_is_let_go(stage: Stage) -> None:
    """Where the server that closed is not to be had again, the client sees a reset, and it is said why."""

    async def close(_: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader, writer
        await stage.reached()

    served, link = await stage.linked(close)
    stage.arm("w/http.post#1:hold=0.1")
    client = await stage.connect(link, POST)
    await stage.reached()
    served.server.close()
    assert await client.hears() == "reset"
    assert "there is no other to be had" in (await stage.failed()).reason
    await stage.nothing_left()


@on_a_stage
async def test_client_that_resets_before_it_is_accepted(stage: Stage) -> None:
    """A client that is gone again before the wire has looked leaves nothing, and the wire says nothing is broken."""
    _, link = await stage.linked()
    stage.arm("")

    def burst() -> None:
        for _ in range(100):
            with socket.create_connection(("127.0.0.1", link)) as end:
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    burst()  # while the loop stands still
    await asyncio.to_thread(burst)  # and while it runs
    await stage.until(lambda: len(stage.all(messages.Opened)) >= 100)
    await stage.nothing_left()
    assert stage.all(messages.Noted) == []
    assert len(stage.all(messages.Opened)) == len(stage.all(messages.Closed))


# -- repeat ------------------------------------------------------------------------------------------------------------


@on_a_stage
async def test_repeat_is_recorded(stage: Stage, tmp_path: Path) -> None:
    """The wire's own record has both copies of a request that it repeated."""
    served = await stage.serve()
    record = tmp_path / "record"
    link = stage.link(served.port, record=str(record))
    stage.arm("w/http.post#1:repeat")
    client = await stage.connect(link, POST)
    assert await client.hears() == "created"
    await stage.fired()
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert [(line["tag"], line["status"]) for line in lines] == [("abc", 201)] * 2
    assert served.requests == [b"POST"] * 2


@on_a_stage
async def test_repeat_of_a_part(stage: Stage) -> None:
    """A request that came too slowly to be kept whole is not repeated, and arrives once."""
    served, link = await stage.linked()
    stage.arm("w/http.post#1:repeat")
    client = await stage.connect(link, POST[:-5])
    await stage.reached()
    client.send(POST[-5:])
    assert await client.hears() == "created"
    assert "to be kept whole" in (await stage.failed()).reason
    assert b"".join(data for _, _, data in served.got) == POST


@on_a_stage
async def test_repeat_where_replies_end_with_the_connection(stage: Stage) -> None:
    """A reply that ends when the server closes is a reply to the repeated request too."""

    async def close_after_each(served: Served, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.read(await reader.read(1 << 16), served.connections)
        writer.write(b"HTTP/1.0 201 Created\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    served, link = await stage.linked(close_after_each)
    stage.arm("w/http.post#1:repeat")
    client = await stage.connect(link, POST)
    assert (await client.hears()).startswith("HTTP/1.0 201")
    await stage.fired()
    assert served.requests == [b"POST"] * 2


# -- a connection that nothing is understood of ------------------------------------------------------------------------


@on_a_stage
async def test_raw_connection_is_told_in_each_drill(stage: Stage) -> None:
    """A connection that is not understood is told in each drill that it is there in, also if it ends before that."""
    _, link = await stage.linked(say_nothing)
    client = await stage.connect(link, b"\x16\x03\x01 hello, TLS\r\n\r\n")
    await stage.until(lambda: stage.all(messages.Noted))
    for _ in range(2):
        stage.events.clear()
        stage.arm("")
        assert [noted.kind for noted in stage.all(messages.Noted)] == ["raw"]
        assert len(list(stage.proxy.unseen())) == 1
        await stage.proxy.disarm()
    client.reset()
    await stage.nothing_left()
    stage.events.clear()
    stage.arm("")
    assert stage.events == []


# -- one process of several --------------------------------------------------------------------------------------------


def test_one_process_of_several(onecharge: Session) -> None:
    """With kill="process" nothing of the killed child lands once that has fired, and its sibling's effects go on."""
    with onecharge.lane() as lane:
        sink = lane.trusted("sink", race_workers.sink, ledger="sink.jsonl", key="tag")
        rig = Rig(lane)
        parent = rig.start(Worker("w", race_workers.family, env={"HTTP_URL": sink.url}, kill="process"))
        sibling = f"sibling of {parent.pid}"

        def seen() -> int:
            return len(sink.ledger.of(sibling))

        for _ in range(10):
            rig.arm("w/http.post#20:crash-before")
            fired = rig.fired()
            assert not fired.killed
            [order] = [order for order in rig.all(messages.Order) if order.what == "kill"]
            goal = seen() + 3
            wait_until("the sibling's effects", seen, Deadline(10), accept=goal.__le__)
            landed = [json.loads(record.text)["at"] for record in sink.ledger.of(str(order.pid))]
            assert landed
            assert max(landed) <= fired.at
            rig.disarm()
        parent.kill()
