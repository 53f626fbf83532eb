"""Reports of several machines made into one, told in words, and read from files."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from chaos import ChaosError, Schedule
from chaos.report import data
from chaos.report.data import Finding, Outcome, Report
from chaos.report.merge import merged, point_of, status, story
from chaos.sweep import Shard

if TYPE_CHECKING:
    from pathlib import Path

POINTS = tuple(f"w~0/{site}#1" for site in ("http.post", "kafka.produce", "postgres.commit"))
SCHEDULES = tuple(f"{point}:{what}" for point in POINTS for what in ("crash-before", "lose-reply"))


def outcome(schedule: str, **more: Any) -> Outcome:
    """That of a schedule that holds, unless it is said otherwise."""
    return Outcome(schedule, **{"status": "holds", "fired": ((schedule, "w~0 was ended by SIGKILL"),), **more})


def shard(number: int, count: int = 2, **more: Any) -> Report:
    """A shard of a sweep that holds."""
    some = Shard(number, count).of(map(Schedule.parse, SCHEDULES))
    facts: dict[str, Any] = {
        "kind": "sweep",
        "system": "jobs:jobs",
        "status": "holds",
        "seconds": float(number),
        "outcomes": tuple(outcome(str(one)) for one in some),
        "points": POINTS,
        "faults": ("crash-before", "lose-reply"),
        "notes": (f"shard {number}/{count}", "audited: 4 messages"),
        "shard": f"{number}/{count}",
    }
    return Report(**{**facts, **more})


def explored(**more: Any) -> Report:
    """An exploration that holds."""
    facts: dict[str, Any] = {"kind": "explore", "system": "jobs:jobs", "status": "holds", "seconds": 1.0}
    return Report(**{**facts, "outcomes": (outcome(SCHEDULES[0]),), "points": POINTS, **more})


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shards_are_the_whole(count: int) -> None:
    """Every schedule is in one shard, whatever the order and whatever else there is on the machine that has it."""
    whole = [Schedule.parse(text) for text in SCHEDULES]
    parts = [list(Shard(number, count).of(whole)) for number in range(1, count + 1)]
    assert sorted(map(str, itertools.chain(*parts))) == sorted(SCHEDULES)
    for number, part in enumerate(parts, 1):
        assert list(Shard(number, count).of(reversed(whole[2:]))) == [one for one in whole[:1:-1] if one in part]


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_all_shards_hold(order: tuple[int, ...]) -> None:
    """All shards that hold are one sweep that holds: each schedule is counted once, a note that is in all told once."""
    one = merged([shard(number, 3) for number in order])
    assert (one.status, one.reasons, one.shard, one.points) == ("holds", (), "", POINTS)
    assert sorted(outcome.schedule for outcome in one.outcomes) == sorted(SCHEDULES)
    assert one.seconds == 3.0
    assert one.notes.count("audited: 4 messages") == 1


def test_points_may_come_in_another_order() -> None:
    """Two recordings of keys that are worked on side by side have the same points in any order."""
    assert merged([shard(1), shard(2, points=POINTS[::-1])]).status == "holds"


@pytest.mark.parametrize("there", [[1], [1, 3], [10, 2]])
def test_shard_that_is_missing(there: list[int]) -> None:
    """Without all shards nothing is proven, and those that are missing are named in their order."""
    one = merged([shard(number, 10) for number in there])
    missing = [number for number in range(1, 11) if number not in there]
    assert one.status == "unknown"
    assert one.reasons == (f"shards are missing: {', '.join(f'{number}/10' for number in missing)}",)
    assert one.shard == " ".join(f"{number}/10" for number in sorted(there))


def test_merged_step_by_step() -> None:
    """What was merged is merged with the rest, and what it lacked is forgotten."""
    assert merged([merged([shard(3, 3), merged([shard(1, 3)])]), shard(2, 3)]) == merged(
        [shard(3, 3), shard(1, 3), shard(2, 3)]
    )


@pytest.mark.parametrize(
    ("reports", "told"),
    [
        ([], "there is no report to merge"),
        ([shard(1), shard(1)], "not the shards of one run: 1/2, 1/2"),
        ([shard(1), shard(2, 3)], "not the shards of one run: 1/2, 2/3"),
        ([shard(1), shard(2, shard="")], "not the shards of one run: 1/2, a whole"),
        ([shard(1, shard="one")], "'one' is no shard"),
        ([shard(1), shard(2, system="other")], "different runs: one has system jobs:jobs, another other"),
        ([shard(1), shard(2, points=POINTS[:2])], "different runs: one has points "),
        ([shard(1), shard(2, faults=("crash-before",))], r"different runs: one has faults \('crash-before', 'lose"),
        ([shard(1), explored()], "different runs: one has kind sweep, another explore"),
    ],
)
def test_what_does_not_belong_together(reports: list[Report], told: str) -> None:
    """Reports that are not the parts of one run are refused, and what differs is said."""
    with pytest.raises(ChaosError, match=told):
        merged(reports)


def test_long_difference_is_cut() -> None:
    """Two hundred points are not told twice."""
    many = tuple(f"w~0/http.post#{number}" for number in range(1, 200))
    with pytest.raises(ChaosError) as raised:
        merged([shard(1), shard(2, points=many)])
    assert len(str(raised.value)) < 300


def test_point_that_no_shard_has_broken() -> None:
    """A point that was broken in no shard is told once all shards are there, and not before."""
    idle = tuple(outcome(text, fired=() if text.startswith(POINTS[1]) else ((text, ""),)) for text in SCHEDULES)
    some = [shard(1, outcomes=idle[:3]), shard(2, outcomes=idle[3:])]
    assert merged(some).reasons == (f"nothing was broken at {POINTS[1]}",)
    assert merged(some).status == "unknown"
    assert merged(some[:1]).reasons == ("shards are missing: 2/2",)


def test_shard_that_does_not_hold() -> None:
    """One shard that is violated or unknown makes the whole so."""
    wrong = shard(2, outcomes=(outcome(SCHEDULES[0], status="violated"),))
    assert merged([shard(1), wrong]).status == "violated"
    reason = "no recovery was broken"
    one = merged([shard(1, reasons=(reason,)), shard(2, reasons=(reason,))])
    assert (one.status, one.reasons) == ("unknown", (reason,))


def test_explorations_are_added_up() -> None:
    """What several machines have explored is one exploration, wherever each began and whatever each recorded."""
    one = merged([explored(), explored(points=POINTS[:1], outcomes=(outcome(SCHEDULES[1], status="violated"),))])
    assert (one.status, len(one.outcomes)) == ("violated", 2)


@pytest.mark.parametrize(
    ("statuses", "reasons", "expected"),
    [
        (["holds", "unfit"], [], "holds"),
        (["holds", "unknown"], [], "unknown"),
        (["unknown", "violated"], ["one"], "violated"),
        (["holds"], ["one"], "unknown"),
        ([], [], "unknown"),
    ],
)
def test_status(statuses: list[str], reasons: list[str], expected: str) -> None:
    """A violation is a violation, whatever else is unknown; nothing at all is nothing proven."""
    assert status([outcome(SCHEDULES[0], status=one) for one in statuses], reasons) == expected


def test_fault_free_run_has_no_point() -> None:
    """A schedule without a fault belongs to no point, and does not spoil the table."""
    assert point_of(outcome("")) == ""
    one = shard(1, 1, shard="", outcomes=(outcome("", status="violated"),))
    assert "violated: no fault" in story(one)


def test_story() -> None:
    """A report in words has the table of its points, and why each schedule that does not hold does not."""
    finding = Finding("one effect per key", "4a1f", "key-1", "has 2 effects", ("#1 {}", "#2 {}"))
    violated = outcome(SCHEDULES[1], status="violated", findings=(finding,), again=10, reproduced=7)
    unknown = outcome(SCHEDULES[2], status="unknown", reasons=("no fault fired",), fired=())
    one = shard(1, outcomes=(outcome(SCHEDULES[0]), violated, unknown), status="violated", reasons=("a hole",))
    assert story(one).splitlines() == [
        "violated: sweep of jobs:jobs, 3 schedules, shard 1/2",
        "  schedules   1 holds, 1 violated, 1 unknown; 0 in which a fault was not reached",
        "  note        shard 1/2",
        "  note        audited: 4 messages",
        "  unknown     a hole",
        "  point                  schedules  holds  violated  unknown  unfit  not reached",
        "  w~0/http.post#1        2          1      1",
        "  w~0/kafka.produce#1    1                           1",
        "  w~0/postgres.commit#1",
        "  violated: w~0/http.post#1:lose-reply (7 of 10 runs)",
        "    one effect per key: key-1 has 2 effects",
        "  unknown: w~0/kafka.produce#1:crash-before",
        "    no fault fired",
    ]


def test_long_story_is_cut() -> None:
    """Of many schedules that do not hold some are told, and the others counted."""
    told = story(explored(outcomes=tuple(outcome(SCHEDULES[0], status="violated") for _ in range(25))))
    assert told.count("violated: w~0") == 10
    assert told.endswith("… and 15 more that do not hold")


def test_file_both_ways(tmp_path: Path) -> None:
    """What is written is read again, and says which format it has."""
    path = tmp_path / "some" / "report.json"
    data.write(path, shard(1))
    assert data.read(path) == shard(1)
    assert msgspec.json.decode(path.read_bytes())["format"] == data.FORMAT


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is no report of onecharge: "),
        (b"{", "is no report of onecharge: "),
        (b"[]", "is no report of onecharge: "),
        (b"{}", "is no report of onecharge: .*`format`"),
        (b'{"format": 1}', "is no report of onecharge: .*`kind`"),
        (b'{"format": "one"}', "is no report of onecharge: "),
        (b'{"format": 1, "kind": "\xff"}', "is no report of onecharge: "),
        (b'{"format": 7, "kind": 1}', "has format 7; this version reads format 1"),
    ],
)
def test_file_that_is_no_report(tmp_path: Path, content: bytes, told: str) -> None:
    """A file that is none of ours, or of another version, is refused by name, and what is wrong is said."""
    path = tmp_path / "report.json"
    path.write_bytes(content)
    with pytest.raises(ChaosError, match=rf"{path} {told}"):
        data.read(path)


def test_file_that_is_not_there(tmp_path: Path) -> None:
    """A missing file, or a directory, is no report."""
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(ChaosError, match="is no report of onecharge"):
            data.read(path)
