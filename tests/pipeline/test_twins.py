"""The seeded bugs run, and differ from their correct brothers in nothing but their bug."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import TYPE_CHECKING

import pytest

from chaos.schedule import Schedule
from pipeline.publish.cdc import CdcRelay
from pipeline.publish.polling import Relay
from tests.thin.consumer import GroupConsumer
from tests.thin.payment import Payment
from tests.twins import reminding, threaded
from tests.twins.systems import DOUBLE, LOST, MISSING, OVERTAKEN, TWINS, TWO_FAULT_TWINS

if TYPE_CHECKING:
    from types import ModuleType

BUGS = {
    "offset_before_effect": {"process"},
    "no_inbox_no_key": {"first_time", "key"},
    "new_key_per_attempt": {"key"},
    "mark_before_report": {"carry"},
    "flush_without_reports": {"carry"},
    "delete_before_produce": {"claim", "mark"},
    "skip_locked": {"publish", "claim", "mark"},
    "confirm_last_received": {"proven", "is_proof", "brother", "config"},
    "no_idempotence": {"config"},
    "inbox_outside_transaction": {"handle"},
    "in_memory_dedupe": {"handle", "first_time", "key"},
    "swallowed_ambiguous_commit": {"place"},
    "auto_commit": {"config", "commit"},
    "async_commit": {"config", "commit_done"},
    "revoke_without_drain": {"revoked"},
    "message_for_event": {"process", "handle", "key"},
    "reminder_in_memory": {"overdue", "place"},
}


def own(module: ModuleType) -> tuple[list[type], set[str]]:
    """A module's own classes; its own functions and its classes' methods, all that are not special."""
    things = [thing for thing in vars(module).values() if getattr(thing, "__module__", None) == module.__name__]
    classes = [thing for thing in things if isinstance(thing, type)]
    functions = {thing.__name__ for thing in things if inspect.isfunction(thing)}
    methods = {method for one in classes for method in vars(one) if not method.startswith("__")}
    return classes, functions | methods


@pytest.mark.parametrize("name", BUGS)
def test_a_twin_overrides_only_its_bug(name: str) -> None:
    """A twin shares all code with its brother except the methods that its docstring is about."""
    module = import_module(f"tests.twins.{name}")
    classes, functions = own(module)
    assert functions - {"main"} == BUGS[name]
    assert all(issubclass(twin, (Payment, GroupConsumer, Relay, CdcRelay, reminding.Reminder)) for twin in classes)
    assert all(vars(twin).keys() & BUGS[name] <= set(dir(twin.__mro__[1])) for twin in classes)
    assert callable(module.main)
    assert "Found by" in (module.__doc__ or "")
    assert "BUG: should" in inspect.getsource(module)


def test_every_twin_says_where_it_is_found() -> None:
    """Each twin is in one of the tables, with an invariant, and with schedules that can be read."""
    assert {*TWINS, *TWO_FAULT_TWINS} == BUGS.keys()
    for twin in (*TWINS.values(), *TWO_FAULT_TWINS.values()):
        assert twin.invariant in {LOST, DOUBLE, MISSING, OVERTAKEN}
        assert twin.schedules
        assert [str(Schedule.parse(text)).replace("~0", "") for text in twin.schedules] == list(twin.schedules)


def test_the_twins_of_a_threaded_consumer_are_its_subclasses() -> None:
    """A twin that works in a thread is compared with a brother that does, so that the thread is not the difference."""
    for name in ("async_commit", "revoke_without_drain"):
        [twin], _ = own(import_module(f"tests.twins.{name}"))
        assert issubclass(twin, threaded.Threaded)


def test_two_faults_are_in_two_workers() -> None:
    """Each schedule of a twin that needs two faults has one for each of the two workers that it is said to be about."""
    for twin in TWO_FAULT_TWINS.values():
        for text in twin.schedules:
            assert sorted(fault.worker for fault in Schedule.parse(text).faults) == sorted(twin.only)
