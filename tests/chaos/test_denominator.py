"""Denominators that were once wrong for nothing, and correct systems that were once accused: none is any more."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from chaos import ChaosError, System, Worker, group_drained, no_rows, nothing_lost, one_effect_per_key
from tests.chaos import denominator_workers as workers
from tests.chaos.job_workers import SCHEMA
from tests.chaos.test_recording import two_jobs
from tests.chaos.wire import exact_workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chaos import Run, Session

NOOP = "create procedure noop() language sql as 'select 1';"


@contextlib.contextmanager
def small(
    session: Session,
    run: Callable[[], object],
    *,
    schema: str | None = SCHEMA,
    topics: dict[str, int] | None = None,
    sink: Callable[[], object] = exact_workers.sink,
    workload: Callable[[Run], object] = two_jobs,
    settled: list[Any] | None = None,
    grace: float = 0.2,
    **env: str,
) -> Iterator[System]:
    """One worker, its service, a table of jobs."""
    with session.lane(schema=schema, topics=topics) as lane:
        service = lane.trusted("sink", sink, ledger="sink.jsonl", key="tag")
        told = {"HTTP_URL": service.url, "REAL_POSTGRES": lane.postgres}
        told |= {"TOPIC": "{topics[done]}", "GROUP": "{lane}.g"} if topics else {}
        with System(
            lane,
            workers=[Worker("w", run, http=schema is None, env={**told, **env})],
            workload=workload,
            settled=[no_rows("open_jobs")] if settled is None else settled,
            invariants=[nothing_lost(service.ledger), one_effect_per_key(service.ledger)],
            grace=grace,
        ) as system:
            yield system
            system._held.clear()  # what held is not what these tests are about


def test_reply_to_a_client_lies_between(onecharge: Session) -> None:
    """Two effects between which a worker answers its own client are not merged: that reply may be lost too."""

    def orders(run: Run) -> None:
        for _ in range(3):
            key = run.new_key()
            run.post("/", {"id": key})
            run.accept(key)

    with small(onecharge, workers.careless_api, schema=None, workload=orders, settled=[]) as system:
        sweep = system.sweep(faults=["crash-before", "crash-after"])
    assert sweep.merged == {}
    found = {str(verdict.schedule) for verdict in sweep.verdicts if verdict.status == "violated"}
    assert found == {f"w~0/http.post[key-{n}]#1:crash-after" for n in (1, 2, 3)}


def test_commits_of_offsets_without_a_key(onecharge: Session) -> None:
    """A commit of offsets whose records hold no key is a point by count, as any other effect is, not background."""

    def jobs(run: Run) -> None:
        for _ in range(2):
            key = run.new_key()
            [(number,)] = run.execute("insert into jobs (id) values (%s) returning n", key)
            run.accept(key)
            run.produce("done", str(number).encode())

    with small(
        onecharge, workers.by_number, topics={"done": 1}, workload=jobs, settled=[group_drained("{lane}.g", "done")]
    ) as system:
        recording = system.record()
    assert recording.reasons == ()
    assert {point for point in recording.points if "offset" in point} == {
        f"w~0/kafka.offset_commit#{n}" for n in (1, 2)
    }
    assert recording.background == ()


def test_number_of_what_was_not_asked(onecharge: Session) -> None:
    """A transaction that only the number of unasked ones explains is said to be explained by no more than that."""
    with small(onecharge, workers.calling, schema=SCHEMA + NOOP, AROUND="postgres") as system:
        recording = system.record()
    assert recording.reasons or "explained by their number alone" in recording.audited


def test_bookkeeping_is_no_background(onecharge: Session) -> None:
    """What comes a moment after the last effect is the end of the work, not something that repeats by itself."""
    with small(onecharge, workers.keeping_books, grace=0.4) as system:
        recording = system.record()
    assert recording.reasons == ()
    assert recording.background == ()
    assert any("/postgres.commit#" in point for point in recording.points)


def test_what_goes_on_while_it_is_audited(onecharge: Session) -> None:
    """What is produced while the servers are asked is no hole: they are asked first, and what explains it then."""
    with small(onecharge, workers.ticking, topics={"done": 1}) as system:
        recording = system.record()
    assert recording.reasons == ()
    assert recording.background == ("w/kafka.produce",)


def test_grace_begins_with_the_last_fault(onecharge: Session) -> None:
    """A correct system that takes its time after a crash is given the whole grace from then on."""

    def one_job(run: Run) -> None:
        key = run.new_key()
        run.execute("insert into jobs (id) values (%s)", key)
        run.accept(key)

    with small(onecharge, workers.leasing, schema=workers.LEASES, workload=one_job, settled=[], grace=1.5) as system:
        verdict = system.drill("w/http.post[key-1]:crash-before")
    verdict.require_holds()
    assert verdict.requests(verdict.keys[0]) == 1


def test_late_effect_of_a_healthy_run(onecharge: Session) -> None:
    """A second effect that comes when a fault-free run was judged is a violation, and no hole of the wire's."""
    with small(onecharge, workers.repeating, grace=0.4) as system:
        sweep = system.sweep()
    assert sweep.status == "violated"
    assert any("has 2 effects" in reason for reason in sweep.reasons)
    assert not any("audit" in reason for reason in sweep.reasons)


def test_trusted_worker_that_writes_as_well(onecharge: Session) -> None:
    """What a trusted worker does is explained, is no point, and is not broken in a recovery."""
    with small(onecharge, workers.calling, schema=SCHEMA + NOOP, sink=workers.sink_with_a_table) as system:
        sweep = system.sweep(only=["w/postgres.commit"], faults=["crash-before"], depth=2)
        assert all(point.startswith("w~0/") for point in sweep.recording.points)
    assert {fault.worker for verdict in sweep.verdicts for fault in verdict.schedule.faults} == {"w"}


def test_depth_that_there_is_not(onecharge: Session) -> None:
    """A sweep deeper than recoveries of first faults is refused, not called what it is not."""
    with small(onecharge, workers.calling, schema=SCHEMA + NOOP) as system, pytest.raises(ChaosError, match="depth 3"):
        system.sweep(depth=3)
