"""Bundles of the suite's shapes, made on first use and stored in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from export.bundle.from_model import export_bundle
from export.bundle.plan import ExportOptions
from runtime.bundle.schema import MANIFEST, Bundle, open_bundle
from vitnla.data.dataset import Dataset, Split
from vitnla.data.preprocessing import Preprocessing
from vitnla.decomposition import DecomposedModel
from vitnla.methods.none.config import NONE, NoneConfig
from vitnla.methods.parts.report_rows import layer_row
from vitnla.methods.registry import Decomposition
from vitnla.model.config import ViTConfig
from vitnla.model.vit import VisionTransformer
from vitnla.sources.source_model import SourceModel

_IMAGES = 8


def random_bundle(config: ViTConfig, folder: Path, options: ExportOptions, command: str) -> Bundle:
    """Export a model of random weights as a bundle, verified like any other; an existing one is reused.

    Raises:
        VerdictError: its logits are not torch's.
        MissingDependencyError: the engine's compiler is absent.
    """
    if (folder / MANIFEST).is_file():
        return open_bundle(folder)
    torch.manual_seed(0)
    model = VisionTransformer(config).eval()
    rng = np.random.default_rng(0)
    size = (_IMAGES, config.image_size, config.image_size, config.channels)
    split = Split(rng.integers(0, 256, size, np.uint8), rng.integers(0, config.classes, _IMAGES, np.int64))
    labels = tuple(map(str, range(config.classes)))
    data = Dataset("random", labels, dict.fromkeys(("calibration", "validation", "test"), split))
    middle = (0.5,) * config.channels
    source = SourceModel("random", "0" * 64, model, Preprocessing(image_size=config.image_size, mean=middle, std=middle), labels)
    made = Decomposition(model, tuple(layer_row(config, *name) for name in model.linear_names()))
    return export_bundle(DecomposedModel(source, made, NONE, NoneConfig(), data), folder, options, command=command)
