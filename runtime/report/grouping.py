"""Group cells into sections (one run on one machine) and panels (one batch size and scenario), and label their bundles."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.report.text import NAME_CHARACTERS
from runtime.results.schema import Cell, Ratio
from vitnla.common.errors import InputError


@dataclass(frozen=True)
class Section:
    """The cells of one run on one machine, in the order in which they were recorded."""

    cells: tuple[Cell, ...]

    @property
    def machine(self) -> dict[str, Any]:
        """The facts about the machine, equal for all cells."""
        return self.cells[0].machine

    @property
    def run(self) -> str:
        """The identifier of the run."""
        return self.cells[0].run

    @property
    def created(self) -> str:
        """When the first cell was recorded."""
        return self.cells[0].created

    @property
    def measured(self) -> list[Cell]:
        """The cells that ran."""
        return [cell for cell in self.cells if not cell.error]

    @property
    def failed(self) -> list[Cell]:
        """The cells that did not run."""
        return [cell for cell in self.cells if cell.error]


def sections(cells: Sequence[Cell]) -> list[Section]:
    """Group cells by run and machine, in order of first appearance.

    Raises:
        InputError: there are no cells.
    """
    if not cells:
        raise InputError("expected at least one result, got none", "run vitdeploy bench --results-file FILE first")
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.run, json.dumps(cell.machine, sort_keys=True, default=str)), []).append(cell)
    return [Section(tuple(with_labels(members))) for members in groups.values()]


def with_labels(cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells of one section with `label` set to a short unique name, or to None where the bundle's own name is shown.

    A label that was recorded is kept if no other bundle has it. Otherwise the name of the bundle is shown if it has at most
    `NAME_CHARACTERS`; a longer one is replaced by method, share of MACs and precision, numbered where that is not unique.
    """
    bundles: dict[str, Cell] = {}
    for cell in cells:
        bundles.setdefault(cell.bundle, cell)
    recorded = Counter(cell.label for cell in bundles.values())
    labels: dict[str, str] = {}
    derived: dict[str, list[str]] = {}
    for name, cell in bundles.items():
        if cell.label is not None and recorded[cell.label] == 1 and cell.label not in bundles.keys() - {name}:
            labels[name] = cell.label
        elif len(name) > NAME_CHARACTERS and (label := _derived_label(cell)) is not None:
            derived.setdefault(label, []).append(name)
    taken = {*bundles, *labels.values()}
    for label, names in derived.items():
        numbered = len(names) > 1 or label in taken
        labels |= {name: f"{label} #{number}" if numbered else label for number, name in enumerate(names, 1)}
    return [cell.model_copy(update={"label": labels.get(cell.bundle)}) for cell in cells]


def _derived_label(cell: Cell) -> str | None:
    """Method, share of the dense MACs and precision, such as `auto 0.60 int8`; None where the share is not known."""
    if is_dense(cell):
        return f"dense {cell.precision}"
    return None if cell.macs is None else f"{cell.method} {cell.macs.ratio:.2f} {cell.precision}"


def full_names(cells: Iterable[Cell]) -> dict[str, str]:
    """Return the name of each bundle that is shown under a label, by that label."""
    return {cell.label: cell.bundle for cell in cells if cell.label is not None and cell.label != cell.bundle}


def display_baseline(ratio: Ratio, cells: Iterable[Cell]) -> str:
    """Return the display key of the cell that a ratio is relative to; its key where that cell is not among `cells`."""
    return next((cell.display_key for cell in cells if cell.key == ratio.baseline), ratio.baseline)


@dataclass(frozen=True)
class Panel:
    """Cells that one chart may compare: equal scenario and batch size, or each at the batch size that a search found best."""

    title: str
    cells: tuple[Cell, ...]


def panels(cells: Iterable[Cell]) -> list[Panel]:
    """Group cells by scenario and batch size, smallest batch first, and those of searched batch sizes together at the end."""
    groups: dict[tuple[str, int | None], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.scenario, None if cell.batch_search else cell.batch), []).append(cell)
    several = len({scenario for scenario, _ in groups}) > 1
    titles = {batch: "best batch" if batch is None else f"batch {batch}" for _, batch in groups}
    return [
        Panel(f"{titles[batch]}, {scenario}" if several else titles[batch], tuple(members))
        for (scenario, batch), members in sorted(groups.items(), key=lambda item: (item[0][1] or math.inf, item[0][0]))
    ]


def is_dense(cell: Cell) -> bool:
    """Return True if the bundle was exported without a decomposition."""
    return cell.method == "none"
