"""Sphinx: links to files of the repository lead to a page here, also those in README and the like, which are included.

A link is resolved from the file that it is written in. What has a page in the documentation leads to that page. For any
other file, and for a directory, there is a page with its source under `source/`, so that nothing depends on where the
repository is published. A link to what does not exist is a warning, as ever.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx import addnodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

import chaos

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
PAGES = {ROOT / "README.md": "readme", ROOT / "CONTRIBUTING.md": "contributing", ROOT / "CHANGELOG.md": "changelog"}
LINKED = "files_linked_to"  # in the environment: by document, so that a second build knows of those it does not read


class Links(SphinxTransform):
    """Runs before what Sphinx does with files that can be downloaded."""

    default_priority = 1

    def apply(self, **_: object) -> None:
        """Replace each link to a file."""
        links = (addnodes.download_reference, addnodes.pending_xref)
        for node in [node for kind in links for node in self.document.findall(kind)]:
            target, _, part = node["reftarget"].partition("#")
            file = (Path(node.source or "").parent / target).resolve()
            if node.get("reftype") != "myst" or not target or not file.is_relative_to(ROOT) or not file.exists():
                continue
            link: nodes.Element = self.page(file, part) or self.source(file)
            link.extend(node.children)
            node.replace_self(link)

    def page(self, file: Path, part: str) -> addnodes.pending_xref | None:
        """A link to the documentation's own page of it, if there is one."""
        name = PAGES.get(file) or self.env.path2doc(file / "index.md" if file.is_dir() else file)
        if name not in self.env.found_docs:
            return None
        where = {"refdomain": "doc", "reftype": "myst", "refdoc": self.env.docname, "refexplicit": True}
        return addnodes.pending_xref("", reftarget=name, reftargetid=part or None, **where)

    def source(self, file: Path) -> nodes.reference:
        """A link to the page with its source."""
        here = self.env.docname
        _linked(self.env).setdefault(here, set()).add(file)
        return nodes.reference("", "", internal=True, refuri="../" * here.count("/") + f"{_name(file)}.html")


def pages(app: Sphinx) -> Iterator[tuple[str, dict[str, Any], str]]:
    """The pages with sources: of what is linked to, and of what is in directories that are."""
    files: set[Path] = set().union(*_linked(app.env).values())
    builder: Any = app.builder
    for directory in sorted(file for file in files if file.is_dir()):
        inside = [one for one in sorted(directory.rglob("*")) if one.is_file() and not _hidden(one)]
        files |= set(inside)
        up = "../" * _name(directory).count("/")
        rows = (f'<li><a href="{up}{_name(one)}.html">{one.relative_to(directory)}</a></li>' for one in inside)
        yield _page(directory, f"<ul>{''.join(rows)}</ul>")
    for file in sorted(file for file in files if file.is_file()):
        yield _page(file, builder.highlighter.highlight_block(file.read_text("utf-8"), _language(file)))


def all_names_are_told(_: Sphinx, env: Any) -> None:
    """Warn of a public name of the library that has no entry."""
    told = env.get_domain("py").objects
    for name in chaos.__all__:
        if f"chaos.{name}" not in told:
            logging.getLogger(__name__).warning("chaos.%s is public and not in api.rst", name)


def _linked(env: Any) -> dict[str, set[Path]]:
    if not hasattr(env, LINKED):
        setattr(env, LINKED, {})
    found: dict[str, set[Path]] = getattr(env, LINKED)
    return found


def _page(file: Path, body: str) -> tuple[str, dict[str, Any], str]:
    title = escape(str(file.relative_to(ROOT)))
    return _name(file), {"title": title, "body": f"<h1>{title}</h1>{body}"}, "page.html"


def _name(file: Path) -> str:
    return f"source/{file.relative_to(ROOT)}"


def _hidden(file: Path) -> bool:
    return any(part.startswith(".") or part in {"__pycache__", "node_modules"} for part in file.relative_to(ROOT).parts)


def _language(file: Path) -> str:
    return {".py": "python", ".js": "javascript", ".yml": "yaml", ".sql": "postgresql"}.get(file.suffix, "text")


def setup(app: Sphinx) -> dict[str, bool]:
    """Take part in a build."""
    app.add_transform(Links)
    app.connect("html-collect-pages", pages)
    app.connect("env-check-consistency", all_names_are_told)
    return {"parallel_read_safe": False}
