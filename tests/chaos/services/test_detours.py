"""Links through a real Toxiproxy: each toxic does what it says, healing is verified, nothing hangs, nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from chaos.errors import ChaosError, NotInTime, ServerGone
from chaos.services.cache import Cache
from chaos.services.detours import QUESTIONS, Detour, Detours, answers
from chaos.services.toxiproxy import start_toxiproxy
from chaos.toxics import Bandwidth, Down, Latency, LimitData, ResetPeer, Slicer, SlowClose, Timeout
from chaos.waiting import Deadline, wait_until
from chaos.workers.supervisor import Supervisor
from tests.chaos.services.plain_server import QUESTION, WITHIN_S, PlainServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos.toxics import Stream, Toxic

PLAIN = "plain"
AT_ONCE_S = 0.1  # more than the machine needs, less than any toxic here takes
BOTH_WAYS = pytest.mark.parametrize("stream", ["requests", "replies"])


@pytest.fixture(scope="module")
def detours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Detours]:
    """Detours on a Toxiproxy of their own."""
    with Supervisor(tmp_path_factory.mktemp("detours")) as supervisor, pytest.MonkeyPatch.context() as patch:
        patch.setitem(QUESTIONS, PLAIN, QUESTION)
        cache = Cache(supervisor.own)
        made = Detours(lambda: start_toxiproxy(supervisor, cache, Deadline(240)))
        yield made
        made.end()


@pytest.fixture
def server() -> Iterator[PlainServer]:
    """A service."""
    with PlainServer() as server:
        yield server


@pytest.fixture
def detour(detours: Detours, server: PlainServer) -> Iterator[Detour]:
    """A way to it."""
    detour = detours.open("worker-service", server.address, PLAIN)
    server.accepted.get(timeout=WITHIN_S)  # the question whether it is there
    yield detour
    detours.close(detour)


def ask(detour: Detour) -> bool:
    """Whether a round trip through it succeeds."""
    return answers(detour.listens.address, PLAIN)


class Pair:
    """A connection through a detour: a client's end and the service's, which sends and which reads in a direction."""

    def __init__(self, detour: Detour, server: PlainServer, stream: Stream) -> None:
        client = socket.create_connection(("127.0.0.1", detour.listens.number), timeout=WITHIN_S)
        served = server.accepted.get(timeout=WITHIN_S)
        self.client = client
        self.sends, self.reads = (client, served) if stream == "requests" else (served, client)

    def close(self) -> None:
        """End it."""
        self.client.close()

    def takes(self, data: bytes) -> float:
        """Seconds until all of it has come."""
        began = time.monotonic()
        self.sends.sendall(data)
        left = len(data)
        while left:
            left -= len(self.reads.recv(left))
        return time.monotonic() - began

    def ends(self) -> float:
        """Seconds until the end comes, with nothing before it."""
        began = time.monotonic()
        with contextlib.suppress(ConnectionError):
            assert self.reads.recv(1) == b""
        return time.monotonic() - began

    def silent(self, seconds: float) -> bool:
        """Whether nothing comes for so long, not even the end."""
        self.reads.settimeout(seconds)
        try:
            self.reads.recv(1)
        except TimeoutError:
            return True
        finally:
            self.reads.settimeout(WITHIN_S)
        return False

    def other_way(self) -> float:
        """Seconds that a byte takes against the direction."""
        self.sends, self.reads = self.reads, self.sends
        try:
            return self.takes(b"x")
        finally:
            self.sends, self.reads = self.reads, self.sends


@pytest.fixture
def pair(detour: Detour, server: PlainServer, stream: Stream) -> Iterator[Pair]:
    """A connection that was there before any toxic."""
    made = Pair(detour, server, stream)
    assert made.takes(b"x") < AT_ONCE_S
    yield made
    made.close()


@BOTH_WAYS
def test_latency(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """What goes in that direction comes so much later, on a connection that was there before; the other way at once."""
    detours.spoil([detour], Latency(latency_ms=200, stream=stream))
    assert 0.2 <= pair.takes(b"x") < 0.2 + AT_ONCE_S
    assert pair.other_way() < AT_ONCE_S


@BOTH_WAYS
def test_jitter(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """With jitter each piece has a delay of its own, around the latency."""
    detours.spoil([detour], Latency(latency_ms=40, jitter_ms=40, stream=stream))
    delays = [pair.takes(b"x") for _ in range(12)]
    assert max(delays) - min(delays) > 0.01
    assert max(delays) < 0.08 + AT_ONCE_S


@BOTH_WAYS
def test_bandwidth(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """No more than so many kilobytes come in a second."""
    detours.spoil([detour], Bandwidth(rate_kb_s=20, stream=stream))
    assert 0.35 < pair.takes(bytes(8_000)) < 0.4 + 3 * AT_ONCE_S
    assert pair.other_way() < AT_ONCE_S


@BOTH_WAYS
def test_slow_close(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """Bytes come at once, the end of the connection so much later."""
    detours.spoil([detour], SlowClose(delay_ms=200, stream=stream))
    assert pair.takes(b"x") < AT_ONCE_S
    pair.sends.shutdown(socket.SHUT_WR)
    assert 0.2 <= pair.ends() < 0.2 + AT_ONCE_S


@BOTH_WAYS
def test_timeout(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """Nothing comes and the connection stays; the other way is open."""
    detours.spoil([detour], Timeout(stream=stream))
    pair.sends.sendall(b"x")
    assert pair.silent(0.2)
    assert pair.other_way() < AT_ONCE_S


@BOTH_WAYS
def test_timeout_that_ends(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """Nothing comes, and after so long the connection ends."""
    detours.spoil([detour], Timeout(after_ms=200, stream=stream))
    assert 0.2 - AT_ONCE_S < pair.ends() < 0.2 + AT_ONCE_S


@BOTH_WAYS
def test_reset_peer(detours: Detours, detour: Detour, server: PlainServer, pair: Pair, stream: Stream) -> None:
    """The first piece ends the connection; one that is made under the toxic is reset."""
    detours.spoil([detour], ResetPeer(stream=stream))
    pair.sends.sendall(b"x")
    assert pair.ends() < AT_ONCE_S
    with contextlib.closing(Pair(detour, server, stream)) as late:
        late.sends.sendall(b"x")
        with pytest.raises(ConnectionResetError):
            late.reads.recv(1)


@BOTH_WAYS
def test_slicer(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """What was sent in one piece comes in many small ones, with a pause between them."""
    detours.spoil([detour], Slicer(average_bytes=16, variation_bytes=4, delay_us=5_000, stream=stream))
    pair.sends.sendall(bytes(256))
    pieces = list[int]()
    while sum(pieces) < 256:
        pieces.append(len(pair.reads.recv(256)))
    assert len(pieces) > 8
    assert max(pieces[:3]) <= 2 * 20


@BOTH_WAYS
def test_limit_data(detours: Detours, detour: Detour, pair: Pair, stream: Stream) -> None:
    """So many bytes come, counted from now on, and then the end."""
    detours.spoil([detour], LimitData(most_bytes=10, stream=stream))
    pair.sends.sendall(bytes(30))
    assert len(pair.reads.recv(30, socket.MSG_WAITALL)) == 10


@pytest.mark.parametrize("stream", ["requests", "replies"])
def test_down(detours: Detours, detour: Detour, pair: Pair) -> None:
    """Connections end on both sides, and nobody listens."""
    detours.spoil([detour], Down())
    assert pair.ends() < AT_ONCE_S
    with pytest.raises(ConnectionRefusedError):
        ask(detour)


@pytest.mark.parametrize("stream", ["requests"])
def test_both(detours: Detours, detour: Detour, pair: Pair) -> None:
    """A toxic may be about both directions."""
    detours.spoil([detour], Latency(latency_ms=150, stream="both"))
    assert pair.takes(b"x") >= 0.15
    assert pair.other_way() >= 0.15


@pytest.mark.parametrize(
    "toxic", [Down(), Timeout(), Timeout(stream="requests"), Latency(latency_ms=5_000), Bandwidth(rate_kb_s=1)], ids=str
)
def test_heal(detours: Detours, detour: Detour, server: PlainServer, toxic: Toxic) -> None:
    """A way that was healed carries a question and its answer at once; no connection of before goes on."""
    pair = Pair(detour, server, "replies")
    detours.spoil([detour], toxic)
    detours.heal([detour])
    began = time.monotonic()
    assert ask(detour)
    assert time.monotonic() - began < AT_ONCE_S
    assert pair.ends() < AT_ONCE_S
    pair.close()


def test_one_way_alone(detours: Detours, detour: Detour, server: PlainServer) -> None:
    """What is done to one way to a service is not done to another way to the same service."""
    other = detours.open("other-service", server.address, PLAIN)
    detours.spoil([detour], Down())
    assert ask(other)
    detours.close(other)


def test_healing_is_a_round_trip(detours: Detours) -> None:
    """A way is not healed as long as its service does not answer, whatever Toxiproxy says."""
    with PlainServer() as server:
        detour = detours.open("gone-service", server.address, PLAIN)
        detours.spoil([detour], Down())
    with pytest.raises(NotInTime, match=r"127\.0\.0\.1:\d+ to answer by way of gone-service, which was healed"):
        detours.heal([detour])
    detours.close(detour)


def test_one_of_two_is_not_healed(detours: Detours, detour: Detour) -> None:
    """What keeps one way from being whole keeps no other from it."""
    with PlainServer() as server:
        gone = detours.open("gone-service", server.address, PLAIN)
        detours.spoil([gone, detour], Down())
    with pytest.raises(NotInTime, match="by way of gone-service"):
        detours.heal([gone, detour])
    assert ask(detour)
    detours.close(gone)


def test_a_way_that_was_not_to_be_had(detours: Detours, server: PlainServer) -> None:
    """A way to nobody is an error, and is in nobody's way when there is somebody."""
    with PlainServer() as gone:
        pass
    with pytest.raises(NotInTime, match="by way of late-service"):
        detours.open("late-service", gone.address, PLAIN)
    detours.close(detours.open("late-service", server.address, PLAIN))


def test_spoilt_is_what_toxiproxy_says(detours: Detours, detour: Detour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A toxic that is not there is an error, whatever call was answered."""
    monkeypatch.setattr(Detours, "_poison", lambda *_: None)
    with pytest.raises(ChaosError, match="worker-service was to have nobody who listens; Toxiproxy has "):
        detours.spoil([detour], Down())
    with pytest.raises(ChaosError, match=r"worker-service was to have \[.*'latency'.*\]; Toxiproxy has "):
        detours.spoil([detour], Latency())
    monkeypatch.undo()
    detours.heal_all()
    assert ask(detour)


def test_hundred_cycles(detours: Detours, detour: Detour, server: PlainServer) -> None:
    """A hundred cuts, each healed under traffic, leave the ways that there were, and no connection."""
    before = set(detours.server.call("GET", "/proxies"))
    toxics = [Down(), Timeout(), Latency(latency_ms=20), LimitData(most_bytes=1), ResetPeer(stream="requests")]
    for number in range(100):
        pair = Pair(detour, server, "requests")
        pair.sends.sendall(bytes(1_000))
        detours.spoil([detour], toxics[number % len(toxics)])
        with contextlib.suppress(ConnectionError):
            pair.sends.sendall(bytes(1_000))
        detours.heal([detour])
        server.accepted.get(timeout=WITHIN_S)  # the question
        pair.close()
    assert set(detours.server.call("GET", "/proxies")) == before == {detour.name}
    detours.heal([detour])
    assert detours.server.process is not None
    open_files = f"/proc/{detours.server.process.pid}/fd"
    wait_until("connections to be gone", lambda: len(os.listdir(open_files)), Deadline(5), accept=lambda n: n < 20)  # noqa: PTH208 - the number is enough


def test_hung_toxiproxy(detours: Detours, detour: Detour, server: PlainServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Toxiproxy that does not answer makes the fault fail in time, and is replaced by one with the same ways."""
    monkeypatch.setattr("chaos.services.toxiproxy._CALL_S", 1.0)
    process = detours.server.process
    assert process is not None
    process.signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(ServerGone, match=r"^Toxiproxy at 127\.0\.0\.1:\d+ cannot be spoken to: no answer came in 1 s"):
        detours.spoil([detour], Down())
    assert time.monotonic() - began < 4.0
    assert process.exit is not None
    assert ask(detour)
    server.accepted.get(timeout=WITHIN_S)


def test_hung_while_healing(detours: Detours, detour: Detour, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that hangs when a way is to be healed is replaced, and the way is whole."""
    monkeypatch.setattr("chaos.services.toxiproxy._CALL_S", 1.0)
    detours.spoil([detour], Timeout())
    assert detours.server.process is not None
    detours.server.process.signal(signal.SIGSTOP)
    detours.heal([detour])
    assert ask(detour)


def test_dead_toxiproxy(detours: Detours, detour: Detour) -> None:
    """One that has ended is one error: what, why, what to do. Whoever needs a way afterwards has another."""
    process = detours.server.process
    assert process is not None
    process.kill()
    said = (
        r"^Toxiproxy at 127\.0\.0\.1:\d+ cannot be spoken to: its process was ended by SIGKILL, so no link that goes "
        r"through it has a way to its service\. Its log, \S+, may say why; the next drill with a bad network starts "
        r"another\.$"
    )
    with pytest.raises(ServerGone, match=said):
        detours.spoil([detour], Down())
    with pytest.raises(ServerGone, match=said):
        detours.heal([detour])
    assert detours.server.process is not process
    assert ask(detour)


def test_refused(detours: Detours) -> None:
    """What Toxiproxy refuses is told with what it was asked and what it said."""
    with pytest.raises(ChaosError, match=r"Toxiproxy refused DELETE /proxies/nobody of None: 404 .*proxy not found"):
        detours.server.call("DELETE", "/proxies/nobody")
