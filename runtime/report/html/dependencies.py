"""Says in one line which package a report lacks, instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vitnla.common.errors import MissingDependencyError

_EXTRA = ("plotly", "jinja2")


@contextmanager
def report_extra() -> Iterator[None]:
    """Import what the `report` extra brings inside this block.

    Raises:
        MissingDependencyError: plotly or jinja2 is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        remedy = "pip install 'vitdeploy[report]', or pip install -e '.[report]' in a checkout"
        raise MissingDependencyError(f"a report needs {error.name}, which is not installed", remedy) from error
