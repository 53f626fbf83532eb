"""Fixtures of this project's own tests live in `tests/fix_*.py`, one resource each."""

pytest_plugins = ("tests.fix_browser", "tests.fix_containers", "tests.fix_pipeline", "pytester")
