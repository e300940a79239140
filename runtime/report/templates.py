"""The one Jinja2 environment: templates beside this file, everything escaped, an unknown name is an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_FOLDER = Path(__file__).parent


def render(template: str, **context: Any) -> str:
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


def asset(name: str) -> str:
    """The text of a file of this folder, to be inlined."""
    return (_FOLDER / name).read_text(encoding="utf-8")
