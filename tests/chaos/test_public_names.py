"""The names that `import chaos` offers."""

from __future__ import annotations

import importlib.util

import chaos


def test_every_public_name_exists() -> None:
    """What `__all__` promises can be had, and nothing else is kept ready."""
    assert sorted(chaos.__all__) == sorted(chaos._HOME)
    for name in chaos.__all__:
        assert getattr(chaos, name) is not None


def test_no_public_name_is_a_module() -> None:
    """A name means one thing: importing a submodule would put it over a function of the same name."""
    for name in chaos.__all__:
        assert importlib.util.find_spec(f"chaos.{name}") is None
