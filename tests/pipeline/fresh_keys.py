"""What Schemathesis does not read in the description: a key stands for one order, so another order needs another key.

Its hooks, which it imports in its own process. What is sent again as it was keeps its key, and is to be accepted again.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import schemathesis

from pipeline.write.orders import KEY, check_key
from pipeline.write.problems import Problem

if TYPE_CHECKING:
    from schemathesis import Case, HookContext

_sent: dict[str, object] = {}
_numbers = itertools.count()


@schemathesis.hook
def before_call(_context: HookContext, case: Case[Any], _kwargs: dict[str, Any]) -> None:
    """Make an order that is valid by its schema one that is to be accepted."""
    valid = bool(case.meta and case.meta.generation.mode.is_positive)
    if valid and isinstance(case.body, dict):
        case.body = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in case.body.items()}
    try:
        key = check_key([case.headers[KEY]])
    except (LookupError, Problem):
        return
    if _sent.setdefault(key, case.body) != case.body and valid:
        case.headers[KEY] = f"fresh-{next(_numbers)}"
