"""Tests that are explored: a test function with a parameter ``schedule`` is run under many schedules.

::

    @chaos.explore(max_faults=3, seconds=60)
    def test_any_schedule(shop, schedule):
        shop.drill(schedule).require_holds()

One of its other parameters is the fixture with the `System`, or with `Lanes`: then it is run in all of them at once,
each call with the system of one lane. Points are found when the test runs, by recording the system. What the test
asserts beside the verdict counts as an invariant. ``@hypothesis.example(schedule="…")`` below it pins a schedule, which
is tried first. The database of examples is Hypothesis's, as its settings have it; there is one in CI too.

With ``--onecharge-replay='…'`` only that schedule is tried, ten times.
"""

from __future__ import annotations

import functools
import inspect
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from chaos.errors import ChaosError, NotHolding
from chaos.invariants import Violation
from chaos.lanes import Lanes
from chaos.schedule import Schedule
from chaos.system import System

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from chaos.drill import Verdict
    from chaos.errors import Told

    Test = Callable[..., None]

_NAME = "schedule"
_EXAMPLES = "hypothesis_explicit_examples"


def explore(
    *,
    seconds: float = 60.0,
    max_faults: int = 3,
    faults: Sequence[str] | None = None,
    only: Sequence[str] = (),
    seed: int | None = None,
) -> Callable[[Test], Test]:
    """Run a test under many schedules; see the module's docstring.

    Args:
        seconds: of the search; ``--onecharge-budget`` says otherwise.
        max_faults: in one schedule.
        faults: what to do at points; by default all there is.
        only: workers, or sites of workers, to break; by default all.
        seed: of what is drawn.

    Raises:
        ChaosError: the test has no parameter ``schedule``.
    """

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        if _NAME not in signature.parameters:
            raise ChaosError(f"{test.__qualname__} is explored and has no parameter {_NAME!r}")

        @functools.wraps(test)
        def explored(*args: Any, request: Any, **fixtures: Any) -> None:
            __tracebackhide__ = True  # what was found is the message; this function is no part of it
            # A machine without Hypothesis skips the test; the others of its file, and of the run, are run all the same.
            from chaos.exploration import Explorer  # noqa: PLC0415 - see above
            from chaos.strategies import Saved, default_database  # noqa: PLC0415 - see above

            ground = next((one for one in fixtures.values() if isinstance(one, System | Lanes)), None)
            if ground is None:
                names = ", ".join(fixtures) or "none at all"
                raise ChaosError(
                    f"none of the test's fixtures is a System or Lanes, what is to be broken? It has {names}"
                )
            option = functools.partial(getattr, request.config.option)  # there are none without the plugin
            budget, text = option("onecharge_budget", None), option("onecharge_replay", None)
            if "request" in signature.parameters:
                fixtures["request"] = request
            explorer = Explorer(
                ground,
                seconds if budget is None else budget,
                max_faults,
                faults=faults,
                only=only,
                pinned=tuple(_pinned(test)),
                seed=seed,
                saved=Saved(default_database(), request.node.nodeid),
                replay=functools.partial(_command, request.node.nodeid),
                body=functools.partial(_body, functools.partial(test, *args), fixtures, ground),
            )
            result = explorer.run() if text is None else explorer.replayed(Schedule.parse(text))
            ground.tell(result)
            result.require_holds()

        vars(explored).pop(_EXAMPLES, None)  # Hypothesis's plugin refuses a test that has examples and no @given
        kept = [one for name, one in signature.parameters.items() if name not in {_NAME, "request"}]
        asked = inspect.Parameter("request", inspect.Parameter.KEYWORD_ONLY)
        explored.__signature__ = signature.replace(parameters=[*kept, asked])  # type: ignore[attr-defined]
        return explored

    return decorate


def _command(nodeid: str, text: str) -> str:
    return f"pytest {shlex.quote(nodeid)} --onecharge-replay={shlex.quote(text)}"


def _pinned(test: Test) -> Iterator[Schedule]:
    """The schedules of ``@hypothesis.example``, which only leaves them on the function."""
    for example in getattr(test, _EXAMPLES, ()):
        schedule = example.kwargs.get(_NAME)
        if not isinstance(schedule, str | Schedule):
            raise ChaosError(f"@example of {test.__qualname__} has {schedule!r} as its {_NAME}, which is none")
        yield Schedule.parse(schedule) if isinstance(schedule, str) else schedule


def _body(
    test: functools.partial[None], fixtures: Mapping[str, Any], ground: object, system: System, schedule: Schedule
) -> Verdict:
    """Call the test with a system; the verdict that its drill gave, to which what it asserts is added."""
    mine = {name: system if one is ground else one for name, one in fixtures.items()}
    told: list[Told] = []
    tell, system.lane.on_verdict = system.lane.on_verdict, told.append
    failed: BaseException | None = None
    try:
        test(**mine, **{_NAME: schedule})
    except NotHolding as error:
        if error.verdict.schedule == schedule:
            told.append(error.verdict)
        else:
            failed = error
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever the test raises is its judgement
        failed = error
    finally:
        system.lane.on_verdict = tell
    verdicts: list[Any] = [one for one in told if getattr(one, "schedule", None) == schedule]
    if not verdicts:
        raise ChaosError(f"{test.func.__qualname__} has not drilled the schedule it was given") from failed
    verdict: Verdict = max(verdicts, key=lambda one: ("holds", "unknown", "violated").index(one.status))
    if failed is not None:
        verdict.error = failed
        said = f"{type(failed).__name__}: {failed}"
        if verdict.status == "holds" and isinstance(failed, AssertionError | pytest.fail.Exception | NotHolding):
            verdict.violations.append(Violation("the test", "", said))
        else:  # what it has asserted of a run that proves nothing proves nothing
            verdict.reasons.append(said)
    return verdict
