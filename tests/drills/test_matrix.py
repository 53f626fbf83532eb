"""Each worker loses each of its services, each in another way: the diagonal of the matrix (`benchmarks.matrix`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fix_matrix import carry_out, diagonal, page, table

if TYPE_CHECKING:
    from chaos import Session

pytestmark = pytest.mark.drills


def test_the_diagonal(onecharge: Session) -> None:
    """Nothing is lost and nothing doubled, whatever was lost, and what befell it was done and healed."""
    outcomes = list(carry_out(onecharge, diagonal()))
    reports = onecharge.output / "reports" / "matrix"
    reports.mkdir(parents=True, exist_ok=True)
    (reports / "diagonal.html").write_text(page(outcomes), encoding="utf-8")
    (reports / "diagonal.txt").write_text(table(outcomes), encoding="utf-8")
    for one in outcomes:
        one.verdict.require_holds()
        assert one.verdict.fired
    assert {one.cell for one in outcomes} == {*diagonal()}
