"""Validation and calibration splits: a fixed choice of training images, never test images."""

from __future__ import annotations

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split

HELD_OUT, CALIBRATION = 2_000, 1_000
"""Images for validation and for calibration; a tenth of the training images each where that is fewer."""
_TEST_SHARE = 5


def carve(training: Split, held_out: int, calibration: int) -> dict[str, Split]:
    """Cut the last `held_out` images off for validation. The last `calibration` of the rest calibrate, and are trained on too."""
    fitted = len(training) - held_out
    return {
        "train": training.take(slice(0, fitted)),
        "calibration": training.take(slice(fitted - calibration, fitted)),
        "validation": training.take(slice(fitted, None)),
    }


def assemble(name: str, labels: tuple[str, ...], training: Split, test: Split) -> Dataset:
    """Return a data set from its published training and test images: validation and calibration are random training images.

    Raises:
        InputError: there are too few training images, or no test images.
    """
    if len(training) < 2 or not len(test):
        found = f"{len(training)} and {len(test)}"
        raise InputError(f"data '{name}': expected at least 2 training images and 1 test image, got {found}", "add images")
    tenth = max(1, len(training) // 10)
    parts = carve(shuffled(training), min(HELD_OUT, tenth), min(CALIBRATION, tenth))
    return Dataset(name, labels, {**parts, "test": test})


def assemble_whole(name: str, labels: tuple[str, ...], images: Split) -> Dataset:
    """Return a data set from images without splits: a random fifth of them is for testing.

    Raises:
        InputError: there are too few images.
    """
    mixed = shuffled(images)
    cut = len(mixed) - max(1, len(mixed) // _TEST_SHARE)
    return assemble(name, labels, mixed.take(slice(0, max(0, cut))), mixed.take(slice(max(0, cut), None)))


def shuffled(split: Split) -> Split:
    """Return the images in a random order that depends only on their number: many sets are stored class by class."""
    # NumPy guarantees that the legacy generator keeps its stream for good, and promises no such thing of the new one.
    return split.take(np.random.RandomState(0).permutation(len(split)))
