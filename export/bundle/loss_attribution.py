"""Loss attribution: change of predictions from one step of an export to the next."""

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
    """Logits [N, classes] of the evaluation images, and a label of the model that computed them."""

    label: str
    logits: Logits

    @property
    def classes(self) -> NDArray[np.int64]:
        """Predicted classes [N], numbered as the logits are."""
        return np.asarray(self.logits.argmax(axis=1), np.int64)


class LossAttribution:
    """Predictions for one split, from the dense source through every step to the deployed model.

    Args:
        prepare: converts images to the graph's input.
        split: images and labels to score.
        dense: predictions of the dense source, in the order of the split.
    """

    def __init__(self, prepare: Prepare, split: Split, dense: Predictions) -> None:
        self._prepare, self._split = prepare, split
        self.dense = self.last = self._scored(dense)
        self.stages: tuple[LossStage, ...] = ()

    def record(self, stage: Stage, label: str, model: Callable[[Images], Logits], on_progress: Progress) -> None:
        """Evaluate the model after a step, and record how its predictions differ from those of the previous step."""
        after = self._scored(Predictions(label, answer(model, self._prepare, self._split.images, on_progress)))
        labels = self._split.labels if self._split.classes.unmatched is None else None
        self.stages += (loss_stage(stage, self.last, after, labels),)
        self.last = after

    def _scored(self, predictions: Predictions) -> Predictions:
        """Return the logits in the order of the labels' classes, and of those classes only."""
        return Predictions(predictions.label, self._split.classes.scored(predictions.logits))

    @cached_property
    def _fingerprint(self) -> str:
        return self._split.fingerprint()

    def accuracy(self, split: str) -> Accuracy:
        """Return top-1 of the dense source and of the last model, as fractions, and the share of images on which they agree."""
        labels, dense, last, mapping = self._split.labels, self.dense.classes, self.last.classes, self._split.classes
        known = mapping.unmatched is None
        return Accuracy(
            split=split, fingerprint=self._fingerprint, images=len(labels),
            dense_top1=float((dense == labels).mean()) if known else None, top1=float((last == labels).mean()) if known else None,
            agreement=None if mapping.features else float((last == dense).mean()), columns=mapping.columns,
            not_measured=mapping.unmatched,
        )  # fmt: skip


def loss_stage(stage: Stage, before: Predictions, after: Predictions, labels: NDArray[np.int64] | None) -> LossStage:
    """Compare two models' predictions for the same images; `labels` [N] is `None` if the classes have none."""
    flipped = before.classes != after.classes
    margins = _margins(before.logits)
    change = LossStage(
        stage=stage, before=before.label, after=after.label, top1=None, lost_points=None, lost=None, gained=None,
        flips=int(flipped.sum()), flip_margin=float(np.median(margins[flipped])) if flipped.any() else None,
        typical_margin=float(np.median(margins)), logit_error=_relative_rms(before.logits, after.logits),
    )  # fmt: skip
    if labels is None:
        return change
    right, still_right = before.classes == labels, after.classes == labels
    counted = {
        "top1": float(still_right.mean()), "lost_points": 100 * float(right.mean() - still_right.mean()),
        "lost": int((right & ~still_right).sum()), "gained": int((still_right & ~right).sum()),
    }  # fmt: skip
    return change.model_copy(update=counted)


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
