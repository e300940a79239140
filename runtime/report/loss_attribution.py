"""Who lost what on the way from the dense source to the deployed model, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from runtime.results.schema import Cell
from vitnla.common.measures import Accuracy, LossStage

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
        if there is not None and cell.top1 is not None and cell.accuracy_images == there.images:
            key = (cell.bundle, cell.runtime, cell.precision)
            steps = dict(_steps(cell.losses, there, cell.top1))
            found.setdefault(key, Journey(cell.bundle, cell.runtime, there.dense_top1, cell.top1, steps))
    return list(found.values())


def _steps(stages: Sequence[LossStage], there: Accuracy, deployed: float) -> Iterator[tuple[str, float]]:
    """What an export lost on its own runtime counts as the runtime's, together with the change to the one measured here."""
    if not stages:
        yield EXPORT, 100 * (there.top1 - there.dense_top1)
        yield RUNTIME, 100 * (deployed - there.top1)
        return
    before = there.dense_top1
    for stage in stages:
        if stage.stage != RUNTIME:
            yield stage.stage, 100 * (stage.top1 - before)
            before = stage.top1
    yield RUNTIME, 100 * (deployed - before)


def steps_of(found: Iterable[Journey]) -> list[str]:
    """The steps that any of them has, in order."""
    there = {step for journey in found for step in journey.steps}
    return [step for step in STEPS if step in there]
