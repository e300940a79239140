"""Write the tables, CSV files and the self-contained page of a study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from runtime.report.formats import report_extra
from runtime.report.study.tables import epochs_csv, rows_csv
from runtime.results.study import StudyRow, StudySettings
from vitnla.common.files import write_atomically


def write_study(settings: StudySettings, rows: Sequence[StudyRow], folder: Path, *, html: bool) -> list[Path]:
    """Write `study.csv`, `epochs.csv` and, with `html`, `study.html` into the folder; return their paths.

    Raises:
        InputError: the folder cannot be written.
        MissingDependencyError: the `report` extra is not installed.
    """
    texts = {"study.csv": rows_csv(rows), "epochs.csv": epochs_csv(rows)}
    if html:
        with report_extra():
            from runtime.report.study.page import render_study
        texts["study.html"] = render_study(settings, rows, f"vitdeploy study: {settings.data}, preset {settings.preset}")
    for name, text in texts.items():
        write_atomically(folder / name, text)
    return [folder / name for name in texts]


def require_html() -> None:
    """Check before the long work that the page can be written after it.

    Raises:
        MissingDependencyError: the `report` extra is not installed.
    """
    with report_extra():
        import runtime.report.study.page  # noqa: F401
