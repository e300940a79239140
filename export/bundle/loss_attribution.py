"""Loss attribution: how predictions change from one step of an export to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from export.graph.inputs import Prepare
from export.graph.parity import Progress, answer
from runtime.check.logits import probabilities
from runtime.runners.base import Images
from vitnla.common.measures import Accuracy, LossStage
from vitnla.data.dataset import Split

Logits = NDArray[np.float32]
Stage = Literal["preprocessing", "decomposition", "precision", "runtime"]


@dataclass(frozen=True)
class Predictions:
    """Logits [N, classes] of the evaluation images, and a label that says which model gave them."""

    label: str
    logits: Logits

    @property
    def classes(self) -> NDArray[np.int64]:
        """Predicted classes [N]."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)


class LossAttribution:
    """Predictions for one split, from the dense source through every step to the deployed model.

    Args:
        prepare: turns images into the graph's input.
        split: images and labels to score.
        dense: predictions of the dense source, in the order of the split.
    """

    def __init__(self, prepare: Prepare, split: Split, dense: Predictions) -> None:
        self._prepare, self._split = prepare, split
        self.dense = self.last = dense
        self.stages: tuple[LossStage, ...] = ()

    def record(self, stage: Stage, label: str, model: Callable[[Images], Logits], on_progress: Progress) -> None:
        """Evaluate the model that a step made, and record how its predictions differ from those of the step before."""
        after = Predictions(label, answer(model, self._prepare, self._split.images, on_progress))
        self.stages += (loss_stage(stage, self.last, after, self._split.labels),)
        self.last = after

    @cached_property
    def _fingerprint(self) -> str:
        return self._split.fingerprint()

    def accuracy(self, split: str) -> Accuracy:
        """Return top-1 of the dense source and of the last model, as fractions, and the share of images on which they agree."""
        labels, dense, last = self._split.labels, self.dense.classes, self.last.classes
        return Accuracy(
            split=split, fingerprint=self._fingerprint, images=len(labels), dense_top1=float((dense == labels).mean()),
            top1=float((last == labels).mean()), agreement=float((last == dense).mean()),
        )  # fmt: skip


def loss_stage(stage: Stage, before: Predictions, after: Predictions, labels: NDArray[np.int64]) -> LossStage:
    """Compare two models' predictions for the same images with labels [N]."""
    right, still_right = before.classes == labels, after.classes == labels
    flipped = before.classes != after.classes
    margins = _margins(before.logits)
    return LossStage(
        stage=stage, before=before.label, after=after.label, top1=float(still_right.mean()),
        lost_points=100 * float(right.mean() - still_right.mean()),
        lost=int((right & ~still_right).sum()), gained=int((still_right & ~right).sum()), flips=int(flipped.sum()),
        flip_margin=float(np.median(margins[flipped])) if flipped.any() else None, typical_margin=float(np.median(margins)),
        logit_error=_relative_rms(before.logits, after.logits),
    )  # fmt: skip


def _margins(logits: Logits) -> NDArray[np.float64]:
    """Return the probability of the first class less that of the second, [N]; 1 where there is one class only."""
    ranked = np.sort(probabilities(logits), axis=1)
    return ranked[:, -1] - (ranked[:, -2] if ranked.shape[1] > 1 else 0.0)


def _relative_rms(before: Logits, after: Logits) -> float:
    """Return the relative RMS difference of two sets of logits, each centred per image: a constant shift changes no prediction."""

    def centered(logits: Logits) -> NDArray[np.float64]:
        values = logits.astype(np.float64)
        return np.asarray(values - values.mean(axis=1, keepdims=True), np.float64)

    reference = centered(before)
    scale = max(float(np.square(reference).mean()), float(np.finfo(np.float32).tiny))
    return float(np.sqrt(np.square(centered(after) - reference).mean() / scale))
