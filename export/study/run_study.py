"""Run of `vitdeploy study`: row by row, each stored when done, and none repeated."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from export.study.request import Item, Setup, StudyRequest, load_setup, plan_items
from export.study.rows import Report, SeedRows
from runtime.machine.facts import machine_facts
from runtime.report.study.summary import finished
from runtime.results.study import DENSE, StudyRow, StudySettings
from vitnla.common.errors import InputError, VitDeployError
from vitnla.common.files import write_atomically
from vitnla.common.jsonl import append_records, read_records

SETTINGS, RESULTS = "study.json", "results.jsonl"
_HINT = "choose another folder with -o"


@dataclass(frozen=True)
class StudyProgress:
    """Progress callbacks of a study."""

    on_step: Callable[[float, float, str], None] = lambda done, total, text: None
    """Called with the work done and the total, both in epochs, and the current step."""
    on_row: Callable[[StudyRow, float], None] = lambda row, remaining_s: None
    """Called with the row that was just stored, and an estimate of the seconds left."""


def run_study(request: StudyRequest, progress: StudyProgress) -> tuple[StudySettings, list[StudyRow]]:
    """Make every row that the folder does not have yet; a failed row is stored with its reason, and repeated in the next run.

    Returns:
        The settings, and all rows in the folder.

    Raises:
        InputError: the request is invalid, or the folder holds a study with other settings, or cannot be written.
    """
    items = plan_items(request)
    setup = load_setup(request)
    _claim(request.folder, setup.settings)
    torch.set_num_threads(request.threads)
    results = request.folder / RESULTS
    rows = read_records(results, StudyRow, "vitdeploy study") if results.is_file() else []
    done = finished(rows)
    todo = [item for item in items if item.key not in done]
    work = _Work(sum(_weight(item, setup) for item in todo), progress)
    seeds = {item.seed: SeedRows(setup, request.folder, item) for item in items if item.method.name == DENSE}
    for item in todo:
        row = _make(item, seeds[item.seed], request.command, work.step(item, _weight(item, setup)))
        append_records(results, [row], _HINT)
        rows.append(row)
        progress.on_row(row, work.finish(_weight(item, setup)))
    return setup.settings, rows


class _Work:
    """Amount of work done, in epochs."""

    def __init__(self, total: float, progress: StudyProgress) -> None:
        self._total, self._done = total, 0.0
        self._progress = progress
        self._started = time.perf_counter()

    def step(self, item: Item, weight: float) -> Report:
        """Return the progress callback of a row of this weight."""
        return lambda share, text: self._progress.on_step(self._done + share * weight, self._total, f"{item.key}: {text}")

    def finish(self, weight: float) -> float:
        """Count a row as done, and return an estimate of the seconds for the remaining rows."""
        self._done += weight
        return (time.perf_counter() - self._started) * (self._total - self._done) / self._done


def _weight(item: Item, setup: Setup) -> float:
    """Return a row's work in epochs; measuring its model takes about one epoch."""
    return 1.0 + (setup.preset.train.epochs if item.is_trained else 0)


def _make(item: Item, rows: SeedRows, command: str, report: Report) -> StudyRow:
    described = StudyRow(
        created=datetime.now(UTC).isoformat(timespec="seconds"), command=command, method=item.method.name,
        kind=item.method.kind, config=item.config.model_dump(mode="json"), label=item.label, seed=item.seed,
        machine=machine_facts(),
    )  # fmt: skip
    try:
        return described.model_copy(update=rows.make(item, report))
    except VitDeployError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return described.model_copy(update={"error": f"{error.message}{hint}"})


def _claim(folder: Path, settings: StudySettings) -> None:
    """Store the study's settings in the folder, or check that they are there."""
    path = folder / SETTINGS
    if not path.is_file():
        write_atomically(path, settings.to_json())
        return
    found = StudySettings.read(path)
    different = [name for name in StudySettings.model_fields if getattr(found, name) != getattr(settings, name)]
    if different:
        raise InputError(
            f"{folder} holds a study with other settings ({', '.join(different)})",
            "give the same settings to go on with it, or another folder with -o",
        )
