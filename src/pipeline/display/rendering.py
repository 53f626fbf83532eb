"""The pages' templates, filled in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=select_autoescape(),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def money(amount: int, currency: str) -> str:
    """Minor units as people write them."""
    return f"{amount // 100}.{amount % 100:02} {currency}"


_TEMPLATES.filters["money"] = money


def render(template: str, **values: object) -> str:
    """A template's text."""
    return _TEMPLATES.get_template(template).render(values)
