"""Accuracy on the runtime itself, and agreement with the dense torch model, without torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from runtime.bundle import Bundle
from runtime.runners.base import Images, Logits
from runtime.stats import Interval, wilson
from vitnla.common.errors import InputError

Classes = NDArray[np.int64]


@dataclass(frozen=True)
class Evaluation:
    """A labelled split. `runtime` knows no data sets: whoever calls it brings the images, preprocessed as a bundle wants them.

    Args:
        fingerprint: of the first so many images and labels of the split, as `manifest.accuracy.fingerprint` has it. The
            split may hold more than the N that are run, so that predictions for more or fewer images are still known.
        labels: [N].
        batches: gives the N images in order, in batches of any size, prepared as one bundle's `manifest.input` says.
    """

    fingerprint: Callable[[int], str]
    labels: Classes
    batches: Callable[[Bundle], Iterable[Images]]


@dataclass(frozen=True)
class Score:
    """What a bundle got right. The last three compare with the dense torch model, and are None where that saw other images."""

    images: int
    top1: Interval
    agreement: float | None
    lost: int | None
    """Images that the dense model has right and this one wrong."""
    gained: int | None
    """The reverse."""
    warnings: tuple[str, ...] = ()


def evaluate(infer: Callable[[Images], Logits], bundle: Bundle, evaluation: Evaluation) -> Score:
    """Run every image of the split through `infer` and score the answers.

    Raises:
        InputError: the batches do not hold one image per label.
    """
    parts = [infer(batch).argmax(axis=1) for batch in evaluation.batches(bundle)]
    predicted = np.concatenate(parts) if parts else np.empty(0, np.int64)
    if not len(predicted) or len(predicted) != len(evaluation.labels):
        found = f"{len(predicted)} images and {len(evaluation.labels)} labels"
        raise InputError(f"expected one image per label, got {found}", "check the evaluation data")
    known = bundle.manifest.accuracy
    if len(predicted) <= known.images and evaluation.fingerprint(known.images) == known.fingerprint:
        return score(predicted, evaluation.labels, bundle.dense_predictions()[: len(predicted)])
    reason = "agreement is not known: the bundle holds the dense model's predictions for other images than these"
    return score(predicted, evaluation.labels, None, (reason,))


def score(predicted: Classes, labels: Classes, dense: Classes | None, warnings: tuple[str, ...] = ()) -> Score:
    """Compare predicted classes [N] with the labels [N] and, where known, with those of the dense model [N]."""
    right = predicted == labels
    top1 = wilson(int(right.sum()), len(labels))
    if dense is None:
        return Score(len(labels), top1, None, None, None, warnings)
    dense_right = dense == labels
    lost, gained = int((dense_right & ~right).sum()), int((right & ~dense_right).sum())
    return Score(len(labels), top1, float((predicted == dense).mean()), lost, gained, warnings)
