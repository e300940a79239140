"""Attribute the change of top-1, from the dense source to the deployed model, to the steps of the export and to the runtime."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell
from vitnla.common.measures import LossStage

EXPORT, RUNTIME = "export", "runtime"
STEPS = ("preprocessing", "decomposition", "precision", EXPORT, RUNTIME)
"""The steps that can lose accuracy, in order; `export` as a whole where its steps were not recorded."""


@dataclass(frozen=True)
class LossAttribution:
    """Top-1, as fractions, of one bundle on one runtime, and its change by step, all on the same images."""

    bundle: str
    runtime: str
    dense: float
    deployed: float
    steps: dict[str, float]
    """Change of top-1 in points by each of `STEPS` that was recorded; they add up to `total`."""

    @property
    def total(self) -> float:
        """Change from dense to deployed, in points."""
        return 100 * (self.deployed - self.dense)


def attribute_losses(cells: Iterable[Cell]) -> list[LossAttribution]:
    """Return one attribution per bundle, runtime and precision whose accuracy was measured on as many images as at export."""
    attributions: dict[tuple[str, str, str], LossAttribution] = {}
    for cell in cells:
        exported = cell.export_accuracy
        if exported is None or exported.dense_top1 is None or exported.top1 is None or cell.top1 is None:
            continue
        if cell.accuracy_images == exported.images:
            key = (cell.bundle, cell.runtime, cell.precision)
            steps = dict(_steps(cell.losses, (exported.dense_top1, exported.top1), cell.top1))
            attributions.setdefault(key, LossAttribution(cell.display_name, cell.runtime, exported.dense_top1, cell.top1, steps))
    return list(attributions.values())


def _steps(stages: Sequence[LossStage], exported: tuple[float, float], deployed: float) -> Iterator[tuple[str, float]]:
    """Yield each step with its change in points.

    `exported` is the top-1 of the dense source and of the bundle, as its export measured them.

    The loss of an export on its own runtime counts as the runtime's, together with the change to the runtime measured here.
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


def attributed_steps(attributions: Iterable[LossAttribution]) -> list[str]:
    """Return the steps that any of the attributions has, in order."""
    present = {step for attribution in attributions for step in attribution.steps}
    return [step for step in STEPS if step in present]
