"""Who lost what on the way from the dense source to the deployed model, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Group
from rich.text import Text

from runtime.report.numbers import MISSING, percent
from runtime.report.terminal.fit import Column, Fitted
from runtime.results.schema import Cell
from vitnla.common.measures import LossStage


def losses_table(losses: Mapping[str, Sequence[LossStage]]) -> Group:
    """One row per bundle and step of its export; bundles without recorded steps have none."""
    rows = [(name, stage) for name, stages in losses.items() for stage in stages]
    columns = [
        Column("Bundle", [name for name, _ in rows], numeric=False),
        Column("Lost by", [stage.stage for _, stage in rows], numeric=False),
        Column("Change", [points(stage) for _, stage in rows]),
        Column("Top-1 %", [percent(stage.top1) for _, stage in rows], rank=5),
        Column("Lost", [_count(stage.lost) for _, stage in rows], rank=2),
        Column("Gained", [_count(stage.gained) for _, stage in rows], rank=3),
        Column("Flips", [f"{stage.flips:,}" for _, stage in rows], rank=1),
        Column("Margin", [MISSING if stage.flip_margin is None else f"{stage.flip_margin:.3f}" for _, stage in rows], rank=4),
        Column("Logits by", [f"{100 * stage.logit_error:.1f} %" for _, stage in rows], rank=6),
    ]
    return Group(Text("\nLoss by step of the export", style="bold"), Fitted(columns, {}))


def points(stage: LossStage) -> str:
    """Change of top-1 in points, with its sign: a loss is negative."""
    return MISSING if stage.lost_points is None else f"{0.0 - round(stage.lost_points, 2):+.2f}"


def _count(number: int | None) -> str:
    return MISSING if number is None else f"{number:,}"


EXPORT, RUNTIME = "export", "runtime"
STEPS = ("preprocessing", "decomposition", "precision", EXPORT, RUNTIME)
"""What can lose accuracy, in order; the export as a whole where its steps were not recorded."""


@dataclass(frozen=True)
class Journey:
    """Top-1, as fractions, of one bundle on its way to one runtime, all on the same images."""

    bundle: str
    runtime: str
    dense: float
    deployed: float
    steps: dict[str, float]
    """Change of top-1 in points by each of `STEPS` that there was; they add up to `total`."""

    @property
    def total(self) -> float:
        """Change in points altogether."""
        return 100 * (self.deployed - self.dense)


def journeys(cells: Iterable[Cell]) -> list[Journey]:
    """One for every bundle and runtime whose accuracy was measured on as many images as at export, batch sizes together."""
    found: dict[tuple[str, str, str], Journey] = {}
    for cell in cells:
        there = cell.export_accuracy
        if there is None or there.dense_top1 is None or there.top1 is None or cell.top1 is None:
            continue
        if cell.accuracy_images == there.images:
            key = (cell.bundle, cell.runtime, cell.precision)
            steps = dict(_steps(cell.losses, (there.dense_top1, there.top1), cell.top1))
            found.setdefault(key, Journey(cell.bundle, cell.runtime, there.dense_top1, cell.top1, steps))
    return list(found.values())


def _steps(stages: Sequence[LossStage], exported: tuple[float, float], deployed: float) -> Iterator[tuple[str, float]]:
    """What an export lost on its own runtime counts as the runtime's, together with the change to the one measured here.

    `exported` is the top-1 of the dense source and of the bundle, as its export measured them.
    """
    before, after = exported
    if not stages:
        yield EXPORT, 100 * (after - before)
        yield RUNTIME, 100 * (deployed - after)
        return
    for stage in stages:
        if stage.stage != RUNTIME and stage.top1 is not None:
            yield stage.stage, 100 * (stage.top1 - before)
            before = stage.top1
    yield RUNTIME, 100 * (deployed - before)


def steps_of(found: Iterable[Journey]) -> list[str]:
    """The steps that any of them has, in order."""
    there = {step for journey in found for step in journey.steps}
    return [step for step in STEPS if step in there]
