"""A whole training run: data set in, described checkpoint out, the test split touched once at the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vitnla.common.errors import InputError
from vitnla.data.dataset import Dataset, Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.model.checkpoint import load_checkpoint
from vitnla.model.predict import predict
from vitnla.sources.description import write_description
from vitnla.training.config import Preset
from vitnla.training.loop import Progress, default_device, read_log, train


@dataclass(frozen=True)
class TrainResult:
    """Where the checkpoint is and how good it is; accuracies are fractions."""

    folder: Path
    epochs: int
    validation_top1: float
    test_top1: float


def train_on(data: Dataset, preset: Preset, folder: Path, progress: Progress) -> TrainResult:
    """Train `preset` on a data set's train split; choose the epoch on validation; evaluate it once on test.

    Raises:
        InputError: the data has no train split or its images are not square, or as `training.loop.train`.
    """
    training = data.split("train")
    _, height, width, channels = training.images.shape
    if height != width:
        raise InputError(f"expected square training images, got {height} x {width}", "resize the data set first")
    preprocessing = statistics_of(training)
    train(
        preset.model(height, channels, len(data.labels)),
        preset.train,
        preprocessing,
        training,
        data.split("validation"),
        folder,
        progress,
    )
    write_description(folder, preprocessing, data.labels)
    test = data.split("test")
    device = default_device()
    top1 = float((predict(load_checkpoint(folder), preprocessing, test.images, device=device).argmax(1) == test.labels).mean())
    log = read_log(folder)
    return TrainResult(folder, len(log), max(entry.validation_top1 for entry in log), top1)


def statistics_of(split: Split) -> Preprocessing:
    """Preprocessing that gives the split's pixels zero mean and unit deviation per channel."""
    pixels = split.images.reshape(-1, split.images.shape[-1]).astype(np.float64) / 255
    mean, std = (tuple(float(round(value, 4)) for value in values) for values in (pixels.mean(0), pixels.std(0)))
    return Preprocessing(image_size=split.images.shape[1], mean=mean, std=std)
