"""The seeded bugs run, and differ from the real consumer in nothing but their bug."""

from __future__ import annotations

from importlib import import_module

import pytest

from pipeline.process.consumer import GroupConsumer
from pipeline.process.payment import Payment

TWINS = {
    "new_key_per_attempt": {"key"},
    "no_inbox_no_key": {"first_time", "key"},
    "offset_before_effect": {"process"},
}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_overrides_only_its_bug(name: str) -> None:
    """A twin shares all code with its brother except the methods that its docstring is about."""
    module = import_module(f"tests.twins.{name}")
    own = [thing for thing in vars(module).values() if isinstance(thing, type) and thing.__module__ == module.__name__]
    assert {method for twin in own for method in vars(twin) if not method.startswith("__")} == TWINS[name]
    assert all(issubclass(twin, (Payment, GroupConsumer)) for twin in own)
    assert callable(module.main)
    assert "Found by" in (module.__doc__ or "")
