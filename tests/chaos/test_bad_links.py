"""Bad networks in schedules: one worker loses one service, from a point on, for a time, and what came of it is told."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, TypeVar

import pytest

from chaos import System, UnknownName, Worker, history, nothing_lost
from chaos.waiting import Deadline, wait_until
from tests.chaos.network_workers import courier, couriers, forgetful, once, send

if TYPE_CHECKING:
    from collections.abc import Iterator

    from chaos import Run, Session, Verdict

E = TypeVar("E", bound=history.Event)

AT = "near/http.post#1"


@pytest.fixture(scope="module")
def system(onecharge: Session) -> Iterator[System]:
    """Couriers and a service that notes each thing once."""
    with couriers(onecharge) as system:
        yield system


def events(verdict: Verdict, kind: type[E]) -> list[E]:
    """Those of one kind."""
    return [event for event in verdict.history if isinstance(event, kind)]


def until_bad(run: Run) -> None:
    """Wait until a toxic is in place."""
    wait_until("the link to be bad", lambda: any(isinstance(one, history.Spoiled) for one in run.history), Deadline(5))


@pytest.mark.parametrize(
    "bad",
    [
        "down=0.3",
        "timeout=0.3",
        "timeout=0.3,requests",
        "latency=0.3,latency_ms:50",
        "latency=0.3,requests,latency_ms:50,jitter_ms:20",
        "bandwidth=0.3,both,rate_kb_s:1",
        "slicer=0.3,average_bytes:16,delay_us:200",
        "reset_peer=0.3",
        "limit_data=0.3,requests,most_bytes:20",
    ],
)
def test_holds(system: System, bad: str) -> None:
    """Each toxic begins at its point, stands as long as it was given, is healed and verified, and is told."""
    verdict = system.drill(f"near-depot:{bad}@{AT}")
    verdict.require_holds()
    [fired] = verdict.fired
    assert fired.fault == f"near-depot:{bad}@near~0/http.post#1"
    assert f"had near-depot:{bad} for 0.3" in fired.ended
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    assert spoiled.links == healed.links == ("near.0-depot",)
    assert 0.3 <= healed.at - spoiled.at < 1.0
    [broke] = events(verdict, history.Broke)
    assert broke.at >= healed.at


def test_one_worker_alone(system: System) -> None:
    """The other worker has its effect while the first one's link is down; the first one's comes behind the healing."""
    verdict = system.drill(f"near-depot:down=0.5@{AT}")
    verdict.require_holds()
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    done = {event.point.partition("~")[0]: event.at for event in verdict.history if isinstance(event, history.Replied)}
    assert done["far"] < healed.at < done["near"]
    assert spoiled.at < done["near"]


def test_link_of_another_worker(onecharge: Session) -> None:
    """A point may be one worker's and the link another's; ``http`` is each HTTP service."""

    def one_after_the_other(run: Run) -> None:
        send(run, "near")
        until_bad(run)
        send(run, "far")

    with couriers(onecharge, workload=one_after_the_other) as system:
        verdict = system.drill("far-http:down=0.3@near/http.post#1")
    verdict.require_holds()
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    assert spoiled.links == ("far.0-depot",)
    done = [event.at for event in verdict.history if isinstance(event, history.Replied) and event.outcome == "done"]
    assert min(done) < healed.at < max(done)


def test_until_nothing_else_is_left_to_do(system: System) -> None:
    """Without seconds a toxic stands until the system has settled, and it is judged on a network that is whole."""
    verdict = system.drill(f"near-depot:latency=latency_ms:30@{AT}")
    verdict.require_holds()
    [healed] = events(verdict, history.Healed)
    done = [event.at for event in verdict.history if isinstance(event, history.Replied)]
    assert max(done) < healed.at


def test_a_cut_that_keeps_it_from_settling(onecharge: Session) -> None:
    """A cut without seconds that the work has to wait for is unknown in the end, and says what stands there."""
    with couriers(onecharge, within=2.0) as system:
        verdict = system.drill(f"near-depot:down@{AT}")
        assert verdict.status == "unknown"
        assert "near-depot:down@near~0/http.post#1 stands until then, and may be what keeps it" in verdict.reasons[0]
        system.drill().require_holds()


def test_lost_replies_are_found(onecharge: Session) -> None:
    """A service that does not know what it has done already does it twice when a reply was lost on the way."""
    with couriers(onecharge, forgetful) as system:
        assert system.drill(f"near-depot:timeout=0.5@{AT}").status == "violated"
        system.drill(f"near-depot:down=0.3@{AT}").require_holds()  # the request itself did not come through


def test_slow_close(system: System) -> None:
    """A connection that ends while its end is slow is enough for that; bytes alone are not."""
    verdict = system.drill("far-depot:slow_close=0.3,delay_ms:100@far/http.post#1")
    verdict.require_holds()
    assert verdict.fired


def test_nothing_went_through_it(system: System) -> None:
    """A toxic that met nothing has not fired: the verdict is unknown, and says what went and what to do."""
    verdict = system.drill(f"near-depot:slow_close=0.05@{AT}")
    assert verdict.status == "unknown"
    assert not verdict.fired
    assert "nothing went through it: in the 0.0" in verdict.reasons[0]
    assert "0 connections ended or refused. Choose a point behind which the worker uses that link" in verdict.reasons[0]


def test_dead_toxiproxy(onecharge: Session) -> None:
    """One that dies in a drill makes it unknown, and is said in one sentence; the next drill has another."""
    killed = list[object]()

    def send_and_kill(run: Run) -> None:
        send(run)
        if not killed:
            until_bad(run)
            process = run.lane.links._detours.server.process
            assert process is not None
            killed.append(process.kill())

    with couriers(onecharge, workload=send_and_kill, within=3.0) as system:
        verdict = system.drill(f"near-depot:down=0.2@{AT}")
        assert verdict.status == "unknown"
        [said] = [reason for reason in verdict.reasons if "Toxiproxy" in reason]
        assert said.startswith("ServerGone: Toxiproxy at 127.0.0.1:")
        assert "cannot be spoken to: its process was ended by SIGKILL" in said
        assert said.endswith("the next drill with a bad network starts another.")
        system.drill(f"near-depot:down=0.2@{AT}").require_holds()


def test_hung_toxiproxy(onecharge: Session) -> None:
    """One that hangs when links are to be spoilt makes the drill unknown; the links work all the same."""
    with couriers(onecharge) as system:
        system.drill(f"near-depot:down=0.1@{AT}").require_holds()
        process = system.lane.links._detours.server.process
        assert process is not None
        process.signal(signal.SIGSTOP)
        verdict = system.drill(f"near-depot:down=0.1@{AT}")
        assert verdict.status == "unknown"
        assert "Toxiproxy at 127.0.0.1:" in verdict.reasons[0]
        assert "no answer came in 3 s" in verdict.reasons[0]
        assert [verdict.effects(key) for key in verdict.keys] == [1, 1]


def test_only_what_is_named_has_a_detour(system: System) -> None:
    """A schedule that names no link starts nobody by way of Toxiproxy, and no worker anew a second time."""
    links = system.lane.links
    system.drill(f"near-depot:down=0.1@{AT}").require_holds()
    assert [way.name for way in links._ways.values()] == ["near.0-depot"]
    before = {member.key: member.process.pid for member in system.crew._members.values()}
    system.drill(f"near-depot:down=0.1@{AT}").require_holds()
    assert before == {member.key: member.process.pid for member in system.crew._members.values()}
    system.drill(f"{AT}:lose-reply").require_holds()
    assert not links._ways
    assert before["far.0"] == system.crew._members["far.0"].process.pid
    assert set(links._detours.server.call("GET", "/proxies")) == set()


def test_with_a_crash(system: System) -> None:
    """A worker may be killed while its link is bad, and its successor has the same bad link."""
    schedule = f"far-depot:latency=0.5,latency_ms:50@far/http.post#1; {AT}:crash-after"
    verdict = system.drill(schedule)
    verdict.require_holds()
    assert len(verdict.fired) == 2


def test_a_link_of_all(system: System) -> None:
    """A service's name alone means the links of all workers to it."""
    verdict = system.drill(f"depot:down=0.3@{AT}")
    verdict.require_holds()
    [spoiled], [healed] = events(verdict, history.Spoiled), events(verdict, history.Healed)
    assert spoiled.links == healed.links == ("near.0-depot", "far.0-depot")


def test_one_after_the_other(system: System) -> None:
    """What is due on a link that is bad already is not carried out: its healing would be that of both."""
    verdict = system.drill(f"near-depot:down=0.6@{AT}; near-depot:timeout=0.1@far/http.post#1")
    assert verdict.status == "unknown"
    [reason] = [reason for reason in verdict.reasons if "stood there already" in reason]
    assert "near-depot:" in reason
    assert len(events(verdict, history.Spoiled)) == 1
    system.drill(f"near-depot:down=0.1@{AT}; far-depot:down=0.1@far/http.post#1").require_holds()


def test_unknown_link(system: System) -> None:
    """A link that no worker has is an error that names the nearest one."""
    with pytest.raises(UnknownName, match="no link 'near-depott': did you mean 'near-depot'"):
        system.drill(f"near-depott:down@{AT}")
    with pytest.raises(UnknownName, match="no link 'near-kafka'"):
        system.drill(f"near-kafka:down@{AT}")


def test_links_of_trusted_workers(onecharge: Session) -> None:
    """A link of all workers is not one of a trusted worker, which no schedule can name either."""
    with onecharge.lane(schema="") as lane:
        (lane.files / "near").mkdir()
        depot = lane.trusted("depot", once, ledger="depot.jsonl", key="tag")
        near = Worker("near", courier, env={"ORDERS": "{files}/near", "HTTP_URL": depot.url})
        with System(
            lane, workers=[near], workload=lambda _: None, settled=[], invariants=[nothing_lost(depot.ledger)]
        ) as system:
            assert [link.name for link in lane.links.named("postgres")] == ["near.0-postgres"]
            with pytest.raises(UnknownName, match="no link 'depot-postgres'"):
                system.drill("depot-postgres:down=1@near/http.post#1")


def test_no_cost_where_nothing_is_named(system: System) -> None:
    """Without a link fault no worker takes a detour, and a drill takes what it takes."""
    began = time.monotonic()
    system.drill().require_holds()
    assert not system.lane.links._ways
    assert time.monotonic() - began < 2.0


def test_what_is_done_again_is_of_the_drill_that_made_it_so(onecharge: Session) -> None:
    """Who has lost a reply asks again before the next drill, also where all was there without that."""
    with couriers(onecharge, workload=lambda run: send(run, "near"), until_answered=False) as system:
        for _ in range(3):
            system.drill("near/http.post#1:lose-reply=silent").require_holds()  # asked again after TIMEOUT_S
            posts = [event.points for event in events(system.drill(""), history.Asked)]
            assert len(posts) == 1
