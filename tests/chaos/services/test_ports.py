"""A leased port is nobody else's, as long as its holder lives."""

from __future__ import annotations

import resource
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from chaos.errors import MissingPart
from chaos.services import ports
from chaos.services.ports import lease_port
from tests.chaos.owner import Owner

if TYPE_CHECKING:
    from pathlib import Path

LEASE = """
from chaos.services.ports import lease_port
held = [lease_port() for _ in range(150)]
tell(numbers=[port.number for port in held])
signal.pause()
"""


@pytest.fixture
def narrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> range:
    """The ports that leases may come from, for this test few enough to have them all at once."""
    below = tmp_path / "ip_local_port_range"
    below.write_text("26002\t60999\n")
    monkeypatch.setattr(ports, "_EPHEMERAL", below)
    monkeypatch.setattr(ports, "_LOWEST", 25_000)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return range(25_000, 26_002)


def test_never_twice(tmp_path: Path) -> None:
    """Two leases never name the same port, also not across threads and processes that lease at once."""
    others = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        others.append(Owner(LEASE, tmp_path / str(number)))
    with others[0], others[1], others[2], ThreadPoolExecutor(4) as pool:
        held = list(pool.map(lambda _: lease_port(), range(150)))
        numbers = [port.number for port in held] + [number for other in others for number in other.told()["numbers"]]

    assert len(numbers) == len(set(numbers)) == 600
    for port in held:
        port.close()


def test_all_of_a_narrow_range(narrow: range) -> None:
    """Every port can be leased but those that somebody listens on; then it is said that there is none."""
    local, everywhere = lease_port(), lease_port()  # other test runs have ports in this range
    with (
        socket.create_server(("127.0.0.1", local.number)),
        socket.create_server(("0.0.0.0", everywhere.number)),  # noqa: S104
    ):
        local.close()
        everywhere.close()
        held: list[ports.Port] = []
        with pytest.raises(
            MissingPart, match=f"a free port is missing: looked for 127.0.0.1:{narrow[0]} to {narrow[-1]}"
        ):
            held.extend(iter(lease_port, None))
    numbers = [port.number for port in held]
    assert len(numbers) == len(set(numbers)) > 0.8 * len(narrow)
    assert set(numbers) <= set(narrow) - {local.number, everywhere.number}

    freed = held.pop(7).number  # a lease ends with its object, too
    again = [lease_port() for _ in range(2)]
    assert not {port.number for port in again} & {port.number for port in held}
    assert freed not in {port.number for port in held}


def test_lease_ends_with_its_holder(narrow: range, tmp_path: Path) -> None:
    """The ports of a process that was SIGKILLed can be leased again at once."""
    with Owner(LEASE, tmp_path) as owner:
        theirs = set(owner.told()["numbers"])
        wanted = min(theirs)
        lease = socket.socket(socket.AF_UNIX)
        with pytest.raises(OSError, match="in use"):
            lease.bind(f"\0onecharge/port/{wanted}")
        owner.end(9)

        lease.bind(f"\0onecharge/port/{wanted}")
        lease.close()
    assert len(narrow) > len(theirs) == 150


def test_outside_the_ephemeral_range() -> None:
    """Leases are taken where no outgoing connection gets its port from, and can be listened on."""
    port = lease_port()

    assert port.number < int(ports._EPHEMERAL.read_text().split()[0])
    assert (str(port), port.address) == (str(port.number), f"127.0.0.1:{port.number}")
    socket.create_server(("127.0.0.1", port.number)).close()
    port.close()
