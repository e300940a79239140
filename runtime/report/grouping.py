"""Splits results into what may be compared: one run on one machine. Two of either are never mixed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from runtime.results.schema import Cell
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
    return [Section(tuple(members)) for members in groups.values()]


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
    """Whether the bundle was exported without a decomposition."""
    return cell.method == "none"
