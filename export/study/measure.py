"""Measurement of a checkpoint's speed and memory, each in a fresh process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from export.study.request import Setup
from runtime.process.child import Child
from runtime.results.study import InferencePoint

_PROBE, _TIMEOUT_S = "export.study.probe", 900.0
_MIB = 1 << 20


@dataclass(frozen=True)
class InferenceCost:
    """Speed and memory of a model's inference."""

    points: tuple[InferencePoint, ...]
    peak_mb: float


def inference_cost(checkpoint: Path, setup: Setup) -> InferenceCost:
    """Measure inference on test images at every batch size of the study.

    Raises:
        WorkerError: the process crashed or took too long.
    """
    settings = setup.settings
    with Child(_PROBE, _TIMEOUT_S) as child:
        few = setup.preprocessing(setup.data.split("test").head(max(settings.batches)).images)
        images = np.resize(few, (max(settings.batches), *few.shape[1:]))  # a small test split is repeated
        np.save(child.folder / "images.npy", images)
        found = child.ask(
            "inference", checkpoint=str(checkpoint.absolute()), images=str(child.folder / "images.npy"),
            batches=list(settings.batches), threads=settings.threads,
        )  # fmt: skip
    return InferenceCost(tuple(InferencePoint(**point) for point in found["points"]), found["peak"] / _MIB)


def training_peak_mb(checkpoint: Path, setup: Setup) -> float:
    """Measure the peak memory, in MiB, of a few training steps at the preset's batch size, with every token kept.

    Raises:
        WorkerError: the process crashed or took too long.
    """
    config = setup.preset.train
    batch = setup.training.head(config.batch_size)
    with Child(_PROBE, _TIMEOUT_S) as child:
        images, labels = child.folder / "images.npy", child.folder / "labels.npy"
        np.save(images, setup.preprocessing(batch.images))
        np.save(labels, batch.labels)
        found = child.ask(
            "training", checkpoint=str(checkpoint.absolute()), images=str(images), labels=str(labels),
            config=config.model_dump(mode="json"), threads=setup.settings.threads,
        )  # fmt: skip
    return float(found["peak"]) / _MIB
