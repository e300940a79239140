"""A complete training run: from a data set to a described checkpoint; the test split is read once, at the end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vitnla.common.errors import InputError
from vitnla.common.schema import Record
from vitnla.data.dataset import Dataset, Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.methods import METHODS
from vitnla.methods.registry import Decomposition, Method, make_config
from vitnla.model.checkpoint import load_checkpoint
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer
from vitnla.sources.description import write_description
from vitnla.training.config import Preset
from vitnla.training.loop import Progress, default_device, read_log, top1_of
from vitnla.training.supervised import train


@dataclass(frozen=True)
class TrainResult:
    """The checkpoint's folder and its accuracies, as fractions."""

    folder: Path
    epochs: int
    validation_top1: float
    test_top1: float


def train_on(
    data: Dataset, preset: Preset, folder: Path, progress: Progress, method: str = "none", settings: Mapping[str, Any] | None = None
) -> TrainResult:  # fmt: skip
    """Train `preset` on a data set's train split; choose the epoch on validation; evaluate it once on test.

    Args:
        method: the decomposition that the model is trained with, such as `svd-online`; its `settings` as in `make_config`.

    Raises:
        InputError: the data has no train split or its images are not square, the method cannot be trained with, or as
            `loop.fit`.
    """
    training = data.split("train").in_memory()
    dense, preprocessing = dense_setup(training, len(data.labels), preset)
    model_config = shape_with(dense, METHODS[method], make_config(METHODS[method], settings or {}))
    train(model_config, preset.train, preprocessing, training, data.split("validation"), folder, progress)
    write_description(folder, preprocessing, data.labels)
    test = data.split("test")
    top1 = top1_of(preprocessing, test, default_device())(load_checkpoint(folder))
    log = read_log(folder)
    return TrainResult(folder, len(log), max(entry.validation_top1 for entry in log), top1)


def dense_setup(training: Split, classes: int, preset: Preset) -> tuple[ViTConfig, Preprocessing]:
    """Return the dense ViT of a preset for these training images, and their preprocessing.

    Raises:
        InputError: the images are not square, or the preset's patches do not divide them.
    """
    _, height, width, channels = training.pixels().shape
    if height != width:
        raise InputError(f"expected square training images, got {height} x {width}", "resize the data set first")
    return preset.model(height, channels, classes), statistics_of(training)


def shape_with(dense: ViTConfig, method: Method[Any], config: Record) -> ViTConfig:
    """Return the config that a method gives a dense model: the model to train from scratch.

    Raises:
        InputError: the method needs calibration, hence a trained model, or its settings do not fit this one.
    """
    if method.needs_statistics(config):
        hint = (
            "decompose a trained model with vitdeploy export, or choose settings that need no calibration, such as weighting=none"
        )
        raise InputError(f"method '{method.name}' needs calibration on a trained model, so there is nothing to train", hint)
    decomposition: Decomposition = method.apply(VisionTransformer(dense).eval(), None, config)
    return decomposition.model.config


def statistics_of(split: Split) -> Preprocessing:
    """Return the preprocessing that gives the split's pixels zero mean and unit deviation per channel."""
    images = split.pixels()
    pixels = images.reshape(-1, images.shape[-1]).astype(np.float64) / 255
    mean, std = (tuple(float(round(value, 4)) for value in values) for values in (pixels.mean(0), pixels.std(0)))
    return Preprocessing(image_size=images.shape[1], mean=mean, std=std)
