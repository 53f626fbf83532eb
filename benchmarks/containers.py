"""What befalls servers in containers beside those that are plain processes: how long until they answer again.

For each of Postgres and Kafka, in turns, the median of all rounds, in seconds:

``SERVER.start``    a lane's own server is started, until it answers
``SERVER.kill``     all of it is SIGKILLed and gone
``SERVER.back``     it is started again on its data, until it answers
``SERVER.restart``  it is ended in order and started again, until it answers
``SERVER.freeze``   it stands still, and goes on, until it answers
``SERVER.drill``    a drill in which it is killed while the card is charged, until the system has settled; it holds

Needs a Docker engine and the images that are named, by default those of ``python -m tests.images.build``.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from benchmarks.report import arguments, report
from chaos import Session
from chaos.services.docker import named_images
from chaos.waiting import Deadline
from tests.fix_containers import IMAGES
from tests.fix_pipeline import thin_pipeline

if TYPE_CHECKING:
    from collections.abc import Callable

    from chaos import System

PATIENCE_S = 60.0
KINDS: tuple[Literal["local", "docker"], ...] = ("local", "docker")
Times = defaultdict[str, list[float]]


def main() -> None:
    """Measure and report."""
    parser = arguments(__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="of each of the two (default: 5)")
    parser.add_argument("--image", metavar="SERVER=IMAGE", action="append", default=[], help="in place of ours")
    options = parser.parse_args()
    images = {**IMAGES, **named_images(options.image)}
    times = {kind: Times(list) for kind in KINDS}
    with tempfile.TemporaryDirectory() as place:
        for _ in range(options.rounds):
            for kind in KINDS:
                with Session(Path(place) / kind, services=kind, images=images) as session:
                    one_round(session, times[kind])
    figures = dict[str, float]()
    for name in times["local"]:
        local, docker = (statistics.median(times[kind][name]) for kind in KINDS)
        figures |= {f"{name}.local": local, f"{name}.docker": docker, f"{name}.ratio": docker / local}
    report(figures, options.json)


def one_round(session: Session, times: Times) -> None:
    """Everything once."""
    session.services.start("toxiproxy")  # what is built or fetched once is, by now
    for name in ("postgres", "kafka"):
        taken(times[f"{name}.start"], lambda name=name: session.services.start(name))  # type: ignore[misc]
    with thin_pipeline(session, own_servers=True) as system:
        for name in ("postgres", "kafka"):
            servers(system, name, times)


def servers(system: System, name: str, times: Times) -> None:
    """What befalls one of them."""
    server = system.lane.server(name)

    def back() -> None:
        system.lane.forget_connections()
        server.start_again(Deadline(PATIENCE_S))

    def restart() -> None:
        server.end(Deadline(PATIENCE_S))
        back()

    def freeze() -> None:
        server.freeze()
        server.thaw()
        server.require_reachable(Deadline(PATIENCE_S))

    for what, do in {"kill": server.kill, "back": back, "restart": restart, "freeze": freeze}.items():
        taken(times[f"{name}.{what}"], do)
    verdict = system.drill(f"{name}:kill@payment/http.post[key-1]#1")
    verdict.require_holds()
    times[f"{name}.drill"].append(verdict.history[-1].at - verdict.history[0].at)


def taken(times: list[float], do: Callable[[], object]) -> None:
    """Do it, and note the seconds."""
    began = time.monotonic()
    do()
    times.append(time.monotonic() - began)


if __name__ == "__main__":
    main()
