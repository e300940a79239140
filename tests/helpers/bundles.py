"""What several tests of the runtime need around a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from export.graph.inputs import bundle_preparation
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from runtime.check.accuracy import Evaluation
from vitnla.data.dataset import Dataset

WRONG = 4


def copy_bundle(bundle: Bundle, folder: Path, **changes: object) -> Bundle:
    """A copy with other manifest fields."""
    shutil.copytree(bundle.folder, folder)
    (folder / MANIFEST).write_text(bundle.manifest.model_copy(update=changes).to_json())
    return open_bundle(folder)


def agreeing_evaluation(bundle: Bundle, data: Dataset) -> Evaluation:
    """The bundle's test split, labelled with the dense model's own answers, all but four of them."""
    labels = bundle.dense_predictions().copy()
    labels[:WRONG] = (labels[:WRONG] + 1) % len(bundle.manifest.labels)
    images = bundle_preparation(bundle)(data.split("test").images)
    return Evaluation(lambda first: bundle.manifest.accuracy.fingerprint, labels, lambda _: np.array_split(images, 3))
