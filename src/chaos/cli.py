"""The command line ``onecharge``: sweep, explore, replay, report.

Exit codes: 0 it holds; 1 an invariant was violated; 3 unknown, it proves less than it should; 2 the command cannot be
carried out as it was written, or something is missing; 130 interrupted.
"""

from __future__ import annotations

import argparse
import importlib
import math
import shlex
import sys
import traceback
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from chaos.errors import ChaosError, NotHolding

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chaos.errors import Told
    from chaos.lanes import Lanes, Make
    from chaos.report.data import Report

HOLDS, VIOLATED, USAGE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 130
_CODES = {"holds": HOLDS, "violated": VIOLATED, "unknown": UNKNOWN}
_EPILOG = "exit codes: 0 holds, 1 violated, 3 unknown, 2 the command is wrong or a part is missing, 130 interrupted"
_TARGET = (
    "module:function; the function takes the session and is a context manager that yields a System in a lane of its "
    "own, see `python -m pydoc chaos.lanes`"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; its exit code."""
    options = _parser().parse_args(argv)
    try:
        code: int = options.run(options)
    except ChaosError as error:
        sys.stderr.write(f"onecharge: {error}\n")
        return USAGE
    except KeyboardInterrupt:
        sys.stderr.write("onecharge: interrupted\n")
        return INTERRUPTED
    except Exception:  # noqa: BLE001 - whoever's it is, Python's own exit code for it would say that it is violated
        traceback.print_exc()
        return USAGE
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as everything else here does."""

    def error(self, message: str) -> NoReturn:
        self.exit(USAGE, f"{self.prog}: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        "onecharge", description="Prove that a system of workers, Postgres and Kafka survives crashes.", epilog=_EPILOG
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    sweep = _command(commands, "sweep", _sweep, "break every point in every way, once each")
    sweep.add_argument("target", metavar="TARGET", help=_TARGET)
    _choice(sweep)
    sweep.add_argument("--depth", type=int, default=1, choices=(1, 2), help="2 also breaks every recovery")
    sweep.add_argument("--baseline", type=Path, metavar="FILE", help="the points that are expected; written if missing")
    sweep.add_argument("--shard", metavar="K/N", default="1/1", help="only the K-th of N parts, for N machines")
    sweep.add_argument("--until-violated", action="store_true", help="end at the first violation")
    explore = _command(commands, "explore", _explore, "try schedules of several faults until a budget is spent")
    explore.add_argument("target", metavar="TARGET", help=_TARGET)
    _choice(explore)
    explore.add_argument("--seconds", type=_seconds, default=60, help="the budget (default: 60)")
    explore.add_argument("--max-faults", type=_positive, default=3, metavar="N", help="in one schedule (default: 3)")
    explore.add_argument("--count", type=_positive, metavar="N", help="end after so many schedules as well")
    explore.add_argument("--seed", type=int, help="of what is drawn")
    explore.add_argument(
        "--database",
        type=Path,
        metavar="DIR",
        default=Path(".hypothesis/examples"),
        help="where counterexamples are kept and tried first the next time (default: .hypothesis/examples)",
    )
    replay = _command(commands, "replay", _replay, "run one schedule again and again, and say how often it violates")
    replay.add_argument("target", metavar="TARGET", help=_TARGET)
    replay.add_argument(
        "schedule", metavar="SCHEDULE", help="its text, or @FILE: a report, whose violated ones are run"
    )
    replay.add_argument("--times", type=_positive, default=10, metavar="N", help="how often (default: 10)")
    for one in (sweep, explore, replay):
        _session_options(one)
    report = _command(commands, "report", _report, "merge reports of shards, and make the page that shows them")
    report.add_argument("files", type=Path, nargs="+", metavar="FILE", help="report.json of each shard")
    report.add_argument("--output", type=Path, default=Path("artifacts"), metavar="DIR", help="default: artifacts")
    return parser


def _command(commands: Any, name: str, run: Callable[..., int], what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=what, description=what + ".", epilog=_EPILOG)
    parser.set_defaults(run=run)
    return parser


def _choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--faults", nargs="+", type=_fault, metavar="FAULT", help="crash-after, freeze=held,0.2, kafka:kill and so on"
    )
    parser.add_argument("--only", nargs="+", default=(), metavar="WORKER[/SITE]", help="break only these")


def _session_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lanes", type=_positive, default=1, metavar="N", help="side by side (default: 1)")
    parser.add_argument("--postgres", metavar="DSN", help="use this Postgres instead of starting one")
    parser.add_argument("--kafka", metavar="ADDRESS", help="use this Kafka instead of starting one")
    parser.add_argument(
        "--services", choices=("local", "docker"), default="local", help="servers as plain processes, or in containers"
    )
    parser.add_argument(
        "--image",
        metavar="SERVER=IMAGE",
        action="append",
        default=[],
        help="in place of the official one",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("artifacts"),
        metavar="DIR",
        help="logs, ledgers, report.json, timeline.html",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"expected a number, 1 at least, and not {text!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, more than none, and not {text!r}")
    return seconds


def _fault(text: str) -> str:
    from chaos.schedule import Fault, done_at  # noqa: PLC0415 - `--help` must not pay for it

    try:
        Fault.parse(done_at("worker/http.post", text))
    except ChaosError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _sweep(options: argparse.Namespace) -> int:
    return _run(
        options,
        lambda lanes: lanes.sweep(
            faults=options.faults,
            only=options.only,
            depth=options.depth,
            baseline=options.baseline,
            until_violated=options.until_violated,
        ),
    )


def _explore(options: argparse.Namespace) -> int:
    from chaos.exploration import Explorer  # noqa: PLC0415 - as above
    from chaos.strategies import Saved, database  # noqa: PLC0415 - as above

    saved = Saved(database(options.database), options.target)

    def explore(lanes: Lanes) -> None:
        explorer = Explorer(
            lanes,
            options.seconds,
            options.max_faults,
            options.count,
            options.faults,
            options.only,
            seed=options.seed,
            saved=saved,
            replay=partial(_replay_line, options.target),
        )
        lanes.tell(explorer.run())

    return _run(options, explore)


def _replay(options: argparse.Namespace) -> int:
    from chaos.exploration import Explorer  # noqa: PLC0415 - as above
    from chaos.report import data  # noqa: PLC0415 - as above
    from chaos.schedule import Schedule  # noqa: PLC0415 - as above

    if options.schedule.startswith("@"):
        report = data.read(Path(options.schedule[1:]))
        texts = list(dict.fromkeys(one.schedule for one in report.outcomes if one.status == "violated"))
        if not texts:
            raise ChaosError(f"{options.schedule[1:]} has no violated schedule to run again")
    else:
        texts = [options.schedule]
    schedules = [Schedule.parse(text) for text in texts]

    def replay(schedule: Schedule, lanes: Lanes) -> None:
        line = partial(_replay_line, options.target)
        lanes.tell(Explorer(lanes, times=options.times, replay=line).replayed(schedule))

    return _run(options, *(partial(replay, schedule) for schedule in schedules))


def _report(options: argparse.Namespace) -> int:
    from chaos.report import build, data, merge  # noqa: PLC0415 - as above

    report = merge.merged([data.read(file) for file in options.files])
    return _tell(merge.story(report), build.write(options.output, [report]), [report])


def _run(options: argparse.Namespace, *what: Callable[[Lanes], object]) -> int:
    """Do it in as many lanes as are wanted; tell what came of it, and write the report, also when it is interrupted."""
    from chaos.report import build  # noqa: PLC0415 - as above
    from chaos.report.live import Live  # noqa: PLC0415 - as above
    from chaos.services.docker import named_images  # noqa: PLC0415 - as above
    from chaos.session import Session  # noqa: PLC0415 - as above

    make = _target(options.target)
    live = Live(sys.stderr)
    told: list[Told] = []
    session = Session(
        options.output,
        postgres=options.postgres,
        kafka=options.kafka,
        services=options.services,
        images=named_images(options.image),
        progress=live.step,
        on_verdict=told.append,
        lanes=options.lanes,
        shard=getattr(options, "shard", "1/1"),
        live=live,
    )
    for old in (*options.output.glob("report*.json"), *options.output.glob("timeline*.html")):
        old.unlink()  # of a run before, about which this one says nothing
    failed: BaseException | None = None
    try:
        with session, session.lanes(make) as lanes:
            for one in what:
                one(lanes)
    except NotHolding as error:  # found when the lanes were left; what was told of it says so by now, if anything was
        told += [error.verdict] if all(one.status == "holds" for one in told) else []
    except BaseException as error:
        failed = error
        if not told:
            raise
    finally:
        live.close()
    for early in [one for one in told if failed is not None and one.status == "holds"]:
        early.reasons.append(f"what came after it was cut short: {type(failed).__name__} {failed}".rstrip())
    reports = list(build.reports(told, options.target, partial(_replay_line, options.target)))
    code = _tell("\n".join(one.story() for one in told), build.write(options.output, reports), reports)
    if failed is not None and code != VIOLATED:
        raise failed
    return code


def _tell(story: str, pages: Sequence[Path], reports: Sequence[Report]) -> int:
    sys.stdout.write("\n".join([story, *(f"  timeline    {page}" for page in pages), ""]))
    found = {report.status for report in reports}
    return _CODES[next(one for one in ("violated", "unknown", "holds") if one in found)]


def _replay_line(target: str, text: str) -> str:
    return f"onecharge replay {shlex.quote(target)} {shlex.quote(text)}"


def _target(text: str) -> Make:
    module, colon, name = text.partition(":")
    if not (colon and all(map(str.isidentifier, module.split(".")))):
        raise ChaosError(f"{text!r} is no target: expected {_TARGET}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ChaosError(f"{text!r}: {error} (looked in {Path.cwd()} and where Python looks)") from error
    make: Make | None = getattr(found, name, None)
    if not callable(make):
        raise ChaosError(f"{text!r}: {module} has no function {name!r}")
    return make


if __name__ == "__main__":
    sys.exit(main())
