"""How the pages are built: `./run docs`, into artifacts/docs. Nothing is fetched, and every warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]  # for `repository`, which is ours

project = "onecharge"
html_title = "onecharge"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["pages.css"]
html_copy_source = html_show_sourcelink = html_show_sphinx = html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "repository"]
myst_enable_extensions = ["colon_fence"]  # directives that a checker of code blocks does not take for code
myst_heading_anchors = 3  # so that `#groupvanished` is found here as it is where the file is read by itself
default_role = "literal"  # docstrings name things in `single` backticks, which elsewhere are Markdown's

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True

nitpicky = True
nitpick_ignore_regex = [
    # Types of others: their entries would have to be fetched.
    ("py:class", r"Path|SearchStrategy|Callable\[\[\]"),
    ("py:exc", r"(confluent_kafka|msgspec)\..*"),
    # These have an entry where they live, and are named without that in annotations.
    ("py:class", r"Event|Record|Recorded|Trusted"),
    # What the library is made of inside; a user sees these and asks nothing of them.
    ("py:class", r"Advice|Armed|Body|Deadline|Exit|Make|Process|Supervisor|Test|Told"),
    ("py:class", r"Docker|Kafka|Port|Postgres|Toxiproxy"),
    ("py:class", r"chaos\.(services|waiting)\..*"),
]
