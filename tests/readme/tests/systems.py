"""README's `make_shop`, for its command lines: what it leaves out there is the fixture of the first example."""

from __future__ import annotations

import contextlib
import inspect
from importlib import import_module

make_shop = contextlib.contextmanager(inspect.unwrap(import_module("tests.conftest").shop))
