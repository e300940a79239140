"""Fill the Jinja2 templates beside this file: everything is escaped, and an unknown name is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

_FOLDER = Path(__file__).parent


def render(template: str, **context: Any) -> str:
    """Fill a template that extends `layout.html` into a document that needs no network."""
    return fill(template, **context, css=_asset("report.css"), script=_asset("report.js"), plotly=Markup(get_plotlyjs()))


def fill(template: str, **context: Any) -> str:
    """Fill the template of that file name in this folder. Values are escaped for HTML and XML."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**context)


def _asset(name: str) -> Markup:
    """Return the text of a file of this folder, to be inlined as it is."""
    return Markup((_FOLDER / name).read_text(encoding="utf-8"))
