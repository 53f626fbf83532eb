"""What runs the blocks of code in the documentation, `docs/blocks.py`, without what it starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docs import blocks

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def carried_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been carried out, with the Python of the page."""
    told: list[str] = []

    def carry_out(words: Sequence[str], code: Sequence[str]) -> str:
        told.append(" ".join([*words, *code]))
        return "done"

    monkeypatch.setattr(blocks, "CARRIED_OUT", dict.fromkeys(blocks.CARRIED_OUT, carry_out))
    return told


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page to write, in a repository of its own with our settings and our CI."""
    (tmp_path / ".ci").mkdir()
    for name in ("tox.ini", "pyproject.toml", ".ci/run"):
        (tmp_path / name).write_text((blocks.ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(blocks, "ROOT", tmp_path)
    return tmp_path / "page.md"


def ran(page: Path, text: str) -> list[tuple[str, bool]]:
    """What came of the blocks of a page."""
    page.write_text(text, encoding="utf-8")
    return [(what, right) for _, what, right in blocks.run(blocks.blocks(page))]


@pytest.mark.parametrize(
    "text",
    [
        "```console\n./run tests -k ports # as always\n```",
        "```sh\n$ onecharge sweep shop:make_shop --lanes 2\nholds: whatever --it prints\n```",
        "```sh\n./run lint && python -m pipeline gauges slot --wait 60\n```",
        "- in a list\n\n  ```json\n  [1]\n  ```",
        '```toml\n[tool]\nname = "x"\n```',
        "```yaml\n- 1\n```",
        "```yaml\njobs:\n  a:\n    steps:\n      - run: onecharge sweep a:b --shard ${{ matrix.n }}/4\n```",
    ],
)
def test_what_is_right_is_right(page: Path, text: str) -> None:
    """A command that its program understands and a document that can be read are right."""
    assert [right for _, right in ran(page, text)] == [True]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("```console\n./run nothing\n```", "no environment nothing"),
        ("```console\nonecharge replay nowhere:make_shop ''\n```", "No module named 'nowhere'"),
        ("```console\nonecharge sweep shop:make_shop --lane 2 --fast\n```", "unrecognized arguments: --fast"),
        ("```console\n$ onecharge sweep\n```", "TARGET"),
        ("```sh\npython -m pipeline nobody\n```", "invalid choice: 'nobody'"),
        ("```sh\npython -m pipeline.nothing\n```", "No module named"),
        ("```sh\npip install 'onecharge[nothing]'\n```", "no such extras"),
        ("```sh\nrm -r /nowhere\n```", "nobody here can say"),
        ("```json\n{\n```", "Expecting property name"),
        ("```yaml\na: [\n```", "expected the node content"),
        ("```yaml\njobs: {a: {steps: [{run: onecharge sweep}]}}\n```", "TARGET"),
        ("```ruby\nputs\n```", "ruby is run by nobody"),
        ("```\nwhat is it\n```", "code without a language"),
        ("    what is it\n", "code without a language"),
    ],
)
def test_what_is_wrong_is_found(page: Path, text: str, why: str) -> None:
    """A block that does not do what it says is wrong, and so is one that nobody can run."""
    ((what, right),) = ran(page, text)
    assert not right
    assert why in what


def test_an_excuse_is_for_one_block_and_has_a_reason(page: Path) -> None:
    """Only the block behind the comment is not run, and a comment without a reason excuses nothing."""
    excused = (
        "<!-- not run: a log\nof ours -->\n```text\n1\n```\n\n```text\n2\n```\n\n<!-- not run: -->\n```text\n3\n```\n"
    )
    assert ran(page, excused) == [
        ("not run: a log of ours", True),
        ("text is run by nobody", False),
        ("text is run by nobody", False),
    ]


def test_what_is_carried_out(page: Path, carried_out: list[str]) -> None:
    """The commands of a console are, where we can; those of a workflow and of `sh` are only understood."""
    ran(
        page,
        "```console\nonecharge explore a:b\n./run up\n```\n"
        "```sh\nonecharge sweep a:b\n```\n"
        "```yaml\njobs: {a: {steps: [{run: onecharge sweep a:b}]}}\n```",
    )
    assert carried_out == ["explore a:b", "up"]


def test_it_is_carried_out_with_the_python_of_the_page(page: Path, carried_out: list[str]) -> None:
    """Also with what stands behind it, and not with what is excused."""
    page.write_text(
        "```console\nonecharge sweep a:b\n```\n```python\n1\n```\n<!-- not run: a sketch -->\n```python\n2\n```\n",
        encoding="utf-8",
    )
    next(blocks.run(blocks.blocks(page)))
    assert carried_out == ["sweep a:b 1\n"]


def test_what_ci_does_not_run_is_found(page: Path) -> None:
    """A command that we leave to CI is one that CI runs."""
    ci = page.parent / ".ci" / "run"
    ci.write_text(ci.read_text(encoding="utf-8").replace("./run foreign", ""), encoding="utf-8")
    assert ran(page, "```console\n./run foreign\n```") == [("CI does not run foreign", False)]
