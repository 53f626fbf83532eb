"""Small file systems of servers: full when they are told to be, seen by nobody else, and gone with who is in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from chaos import ChaosError, NotInTime
from chaos.services.postgres import Postgres
from chaos.services.room import Room, spawner
from chaos.waiting import Deadline, wait_until
from tests.fix_pipeline import thin_pipeline

if TYPE_CHECKING:
    from chaos import Session

PATIENCE_S = 10.0
WRITE = 'echo "$$ has $(cat "$1/note")"; echo more > "$1/more" || echo refused; exec sleep 600'
MOUNTS = pytest.mark.skipif(os.getuid() != 0, reason="takes the right to mount")


def mounts(pid: Path) -> bytes:
    """What a process has mounted."""
    try:
        return (pid / "mounts").read_bytes()
    except OSError:
        return b""


@MOUNTS
def test_full_and_empty(onecharge: Session, tmp_path: Path) -> None:
    """It has as much room as was said; when it is full there is none, also for other users; and then there is again."""
    room = Room(onecharge.supervisor, tmp_path / "full", 20)
    note = room.seen(tmp_path / "full" / "note")
    note.write_bytes(bytes(10 << 20))
    with pytest.raises(OSError, match="No space left"):
        (note.parent / "more").write_bytes(bytes(11 << 20))
    (note.parent / "more").unlink()
    room.fill()
    with pytest.raises(OSError, match="No space left"):
        (note.parent / "more").write_bytes(b"a byte")
    room.empty()
    room.empty()  # nothing left to give back
    (note.parent / "more").write_bytes(bytes(9 << 20))
    assert len(note.read_bytes()) == 10 << 20
    room.end()


@MOUNTS
def test_who_is_in_it(onecharge: Session) -> None:
    """Who is started in it sees it, as the user that was said; nobody else does; it is gone when the last is."""
    place = onecharge.supervisor.run_dir / "seen"
    room = Room(onecharge.supervisor, place, 20)
    room.seen(place / "note").write_text("a note")
    room.seen(place).chmod(0o777)
    argv, env = ["sh", "-c", WRITE, "sh", str(place)], {"PATH": os.environ["PATH"]}
    process = spawner(onecharge.supervisor, room, "in-room", argv, env=env, user=(65534, 65534))()
    more = room.seen(place / "more")
    wait_until("it to have written", more.exists, Deadline(PATIENCE_S), logs=[process.log])
    assert more.stat().st_uid == 65534
    assert process.log.read_text().startswith(f"{process.pid} has a note")  # it is that process, and no child of it
    assert not [*place.iterdir()]
    room.end()
    process.kill()
    assert not mounts(Path(f"/proc/{process.pid}"))
    wait_until("it to be gone", lambda: str(place).encode() not in every_mount(), Deadline(PATIENCE_S))


def every_mount() -> bytes:
    """What all processes have mounted."""
    return b"".join(mounts(pid) for pid in Path("/proc").glob("[0-9]*"))


def test_one_that_may_not_be_made(onecharge: Session) -> None:
    """It is said what it takes, and what the system said."""
    with pytest.raises(ChaosError, match=r"which takes the right to mount: .*(wrong|permitted)"):
        Room(onecharge.supervisor, onecharge.supervisor.run_dir / "odd", -1)


def test_servers_without_one(onecharge: Session) -> None:
    """What has no room of its own is not filled up, and that is said before anything is broken."""
    with pytest.raises(ChaosError, match=r"postgres has no small file system of its own: make the lane with room_mb="):
        Postgres("host=127.0.0.1 port=1").fill()
    with pytest.raises(ChaosError, match="room_mb is for a lane's own servers"), onecharge.lane(schema="", room_mb=200):
        pass
    with (
        thin_pipeline(onecharge, own_servers=True) as system,
        pytest.raises(ChaosError, match="kafka has no small file system of its own"),
    ):
        system.drill("kafka:full@payment/http.post#1")


@MOUNTS
def test_nothing_was_wanted(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that has wanted no room was not harmed: it is waited for, and the verdict is unknown."""
    monkeypatch.setattr(Room, "fill", lambda _room: None)
    monkeypatch.setattr(Postgres, "want_room", lambda _postgres: None)
    monkeypatch.setattr("chaos.services.server._FELT_S", 0.3)
    with thin_pipeline(onecharge, own_servers=True, room_mb=200) as system:
        with pytest.raises(NotInTime, match="postgres to want room in its full file system"):
            system.lane.server("postgres").fill()
        verdict = system.drill("postgres:full=0.1@payment/http.post[key-1]#1")
    assert verdict.status == "unknown"
    assert "postgres to want room" in verdict.story()


@MOUNTS
def test_one_that_hangs(onecharge: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers nobody when there is room again is killed and comes back; one that was not full is left."""
    monkeypatch.setattr("chaos.services.server._HANGS_S", 0.5)
    with onecharge.lane(schema="", own_servers=True, room_mb=200) as lane:
        server = lane.server("postgres")
        lane.forget_connections()
        server.freeze()
        server.empty()
        assert not server.ended
        server.require_room().fill()
        server.empty()
        assert server.ended
        server.start_again(Deadline(PATIENCE_S))
