"""Score a runtime: accuracy, and agreement with the dense torch model, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from runtime.bundle.schema import Bundle
from runtime.check.logits import probabilities
from runtime.results.statistics import Interval, calibration_error, chance_warning, mcnemar, wilson
from runtime.runners.base import Images, Logits
from vitnla.common.errors import InputError

Classes = NDArray[np.int64]
Confidence = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """A labelled split. `runtime` has no data sets: the caller supplies the images, preprocessed for each bundle.

    Args:
        fingerprint: returns that of the first N images and labels of the split, as in `manifest.accuracy.fingerprint`. The
            split may hold more images than are run, so that stored predictions for more or fewer images still apply.
        labels: [N].
        batches: returns the N images in order, in batches of any size, prepared as in the bundle's `manifest.input`.
        columns: returns a bundle's class of each class of the labels, or `None` where they are the same; raises `InputError` where
            the classes are others.
    """

    fingerprint: Callable[[int], str]
    labels: Classes
    batches: Callable[[Bundle], Iterable[Images]]
    columns: Callable[[Bundle], tuple[int, ...] | None] = lambda bundle: None


@dataclass(frozen=True)
class Score:
    """The scores of a bundle. Those relative to the dense torch model are None where that was evaluated on other images."""

    images: int
    top1: Interval
    agreement: float | None
    lost: int | None
    """Images that the dense model has right and this one wrong."""
    gained: int | None
    """The reverse."""
    p_value: float | None
    """p-value of McNemar's exact test: could both models be equally often right?"""
    calibration_error: float
    """Expected, see `stats.calibration_error`."""
    warnings: tuple[str, ...] = ()


def evaluate(infer: Callable[[Images], Logits], bundle: Bundle, evaluation: Evaluation) -> Score:
    """Run every image of the split through `infer` and score the predictions.

    Raises:
        InputError: the batches do not hold one image per label, or the labels are of other classes than the bundle's.
    """
    columns = evaluation.columns(bundle)
    answers = (infer(batch) for batch in evaluation.batches(bundle))
    read = (lambda out: out.astype(np.float64)) if bundle.gives_probabilities else probabilities
    parts = [_predictions(read(answer), columns) for answer in answers]
    predicted = np.concatenate([classes for classes, _ in parts]) if parts else np.empty(0, np.int64)
    if not len(predicted) or len(predicted) != len(evaluation.labels):
        counts = f"{len(predicted)} images and {len(evaluation.labels)} labels"
        raise InputError(f"expected one image per label, got {counts}", "check the evaluation data")
    confidence = np.concatenate([values for _, values in parts])
    known, classes = bundle.manifest.accuracy, len(columns) if columns else int(bundle.manifest.output.shape[-1])
    same = known.columns == columns and known.not_measured is None
    if same and len(predicted) <= known.images and evaluation.fingerprint(known.images) == known.fingerprint:
        return _noted(score(predicted, confidence, evaluation.labels, bundle.dense_predictions()[: len(predicted)]), classes)
    reason = "agreement is not known: the bundle holds the dense model's predictions for other images than these"
    return _noted(score(predicted, confidence, evaluation.labels, None, (reason,)), classes)


def _noted(found: Score, classes: int) -> Score:
    """Add a warning where the model, or the dense one that it was made from, does no better than guessing would."""
    correct = round(found.top1.value * found.images)
    dense = correct + (found.lost or 0) - (found.gained or 0)
    warning = chance_warning(dense, found.images, classes)
    return found if warning is None else replace(found, warnings=(*found.warnings, warning))


def _predictions(values: NDArray[np.float64], columns: tuple[int, ...] | None) -> tuple[Classes, Confidence]:
    """Return the classes [B], numbered as the labels are, and their probabilities [B], of probabilities [B, classes].

    Where the data have fewer classes than the bundle, the probabilities are those given that it is one of them.
    """
    if columns is not None:
        values = values[:, list(columns)]
        values = values / np.maximum(values.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
    return values.argmax(axis=1), np.clip(values.max(axis=1), 0, 1)


def score(
    predicted: Classes, confidence: Confidence, labels: Classes, dense: Classes | None, warnings: tuple[str, ...] = ()
) -> Score:
    """Compare predicted classes [N] and their probabilities [N] with the labels [N] and, where known, the dense model's classes [N]."""
    right = predicted == labels
    top1, error = wilson(int(right.sum()), len(labels)), calibration_error(confidence, right)
    if dense is None:
        return Score(len(labels), top1, None, None, None, None, error, warnings)
    dense_right = dense == labels
    lost, gained = int((dense_right & ~right).sum()), int((right & ~dense_right).sum())
    agreement = float((predicted == dense).mean())
    return Score(len(labels), top1, agreement, lost, gained, mcnemar(lost, gained), error, warnings)
